"""What a person sees of a token: its text as it stands in the row, white space and odd characters made visible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WHITE = {" ": "·", "\n": "⏎", "\t": "⇥"}
_BEFORE = "x"
"""Decoded before each token: some decoders take a space away from the first."""


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each of `ids`; the vocabulary's own spelling where that is no text, such as half a character."""
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(list(ids))]
    decoder = tokenizer.backend_tokenizer.decoder if tokenizer.is_fast else None
    if decoder is None:
        return pieces
    special = special_ids(tokenizer)
    return [piece if i in special else _decoded(decoder, piece) for i, piece in zip(ids, pieces, strict=True)]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that no text stands for: BOS, EOS, the chat template's own."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def visible(text: str) -> str:
    """One line without white space, of which `text` can be told: ``·`` is a space, ``⏎`` a line's end, ``⇥`` a tab."""
    return "".join(map(_visible, text))


def _decoded(decoder, piece: str) -> str:
    text = decoder.decode([_BEFORE, piece])
    return text[len(_BEFORE) :] if text.startswith(_BEFORE) and "\ufffd" not in text else piece


def _visible(character: str) -> str:
    if character in _WHITE:
        return _WHITE[character]
    if character == "\\":
        return "\\\\"
    if character in _WHITE.values() or not character.isprintable():
        return f"\\u{ord(character):04x}"
    return character
