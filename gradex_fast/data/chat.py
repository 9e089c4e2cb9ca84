"""A conversation through the tokenizer's chat template, and which characters the loss is taken on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from gradex_fast.data.cells import cell, is_text
from gradex_fast.data.files import Row
from gradex_fast.errors import GradexError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_SHAREGPT = {
    "system": ("system",),
    "user": ("human", "user"),
    "assistant": ("gpt", "assistant", "chatgpt", "bard", "bing", "model"),
    "tool": ("tool", "observation"),
}
_ROLES = {name: role for role, names in _SHAREGPT.items() for name in names}

Turn = dict[str, Any]


class Conversation(NamedTuple):
    """The rendered text, special tokens included; the loss is taken on the spans [start, end).

    `reaching`: a token that begins before a span and reaches into it is of it, as transformers reads the marks.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    reaching: bool = False


def turns_of(row: Row, column: str) -> list[Turn]:
    """The messages in `column`, as {"role", "content"} or as ShareGPT's {"from", "value"}.

    Raises:
        GradexError: it holds something else, or a role that ShareGPT does not have.
    """
    messages = cell(row, column)
    if not isinstance(messages, list) or not messages:
        raise GradexError(f"{row.place}: column {column!r} must be a list of role and content, or of from and value")
    return [_turn(message, row.place, column) for message in messages]


def marks_turns(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether its chat template says which text is the assistant's."""
    return bool(_MARK.search(_template(tokenizer) or ""))


def way_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """How `converse` finds the assistant's turns with this tokenizer."""
    if marks_turns(tokenizer):
        return "as {% generation %} in the chat template marks them"
    return "found by rendering what is before them"


def converse(
    turns: list[Turn], tokenizer: PreTrainedTokenizerBase, place: str, *, everywhere: bool = False, start: int = 0
) -> Conversation:
    """Render `turns`; the loss is taken on assistant turns, or everywhere, from turn `start` on.

    An assistant turn is what the template marks as {% generation %}, or else what it adds to the generation prompt
    before it, its end marker included.

    Raises:
        GradexError: no template, or one that refuses the messages or that renders a turn otherwise once others follow
            (so that its place cannot be told).
    """
    if not (template := _template(tokenizer)):
        raise GradexError(
            f"{place}: messages need a chat template and this tokenizer has none; use prompt and completion columns"
        )
    if not tokenizer.is_fast:  # the slow ones cannot say which characters a token stands for
        raise GradexError(f"{place}: messages need a fast tokenizer; use prompt and completion columns")
    text = _rendered(turns, tokenizer, place)
    marked = not everywhere and bool(_MARK.search(template))
    if everywhere:
        spans = [(0, len(text))]
    elif marked:
        spans = _marked(turns, template, text, tokenizer, place)
    else:
        spoken = [index for index in range(start, len(turns)) if turns[index]["role"] == "assistant"]
        spans = [_span(turns, i, text, tokenizer, place) for i in spoken]
    first = _before(turns, start, text, tokenizer, place)
    return Conversation(text, tuple((max(a, first), b) for a, b in spans if b > first), marked)


def _marked(turns: list[Turn], template: str, text: str, tokenizer: Any, place: str) -> list[tuple[int, int]]:
    from transformers.utils.chat_template_utils import render_jinja_template

    options = {"chat_template": template, "return_assistant_tokens_mask": True, **tokenizer.special_tokens_map}
    (again,), (spans,) = render_jinja_template([turns], **options)
    if again != text:
        raise GradexError(f"{place}: the chat template renders the messages otherwise when it marks them")
    return [(start, end) for start, end in spans]


def _span(turns: list[Turn], index: int, text: str, tokenizer: Any, place: str) -> tuple[int, int]:
    before = _before(turns, index, text, tokenizer, place)
    after = _rendered(turns[: index + 1], tokenizer, place)
    if not text.startswith(after) or len(after) < before:
        raise GradexError(_REWRITES.format(place=place, number=index + 1))
    return before, len(after)


def _before(turns: list[Turn], index: int, text: str, tokenizer: Any, place: str) -> int:
    """Characters of `text` before turn `index`, the generation prompt among them."""
    for prompt in (True, False):  # some prompts open a thought that the turn itself lacks
        before = _rendered(turns[:index], tokenizer, place, add_generation_prompt=prompt)
        if text.startswith(before):
            return len(before)
    raise GradexError(_REWRITES.format(place=place, number=index + 1))


_REWRITES = (
    "{place}: the chat template rewrites earlier turns, so message {number} cannot be "
    "told from its context; use one assistant turn a row, or prompt and completion"
)


def _template(tokenizer: Any) -> str | None:
    return tokenizer.get_chat_template() if getattr(tokenizer, "chat_template", None) else None


def _rendered(turns: list[Turn], tokenizer: Any, place: str, **options: bool) -> str:
    if not turns:
        return ""
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, **options)
    except Exception as error:  # the template is the model's own program
        reason = " ".join(str(error).split())
        raise GradexError(f"{place}: the chat template refuses the messages: {reason}") from error


def _turn(message: Any, place: str, column: str) -> Turn:
    shared = isinstance(message, dict) and message.get("from") is not None and message.get("role") is None
    keys = ("from", "value") if shared else ("role", "content")
    role, content = (message.get(key) for key in keys) if isinstance(message, dict) else (None, None)
    if not (is_text(role) and is_text(content)):
        raise GradexError(f"{place}: column {column!r}: {keys[0]} and {keys[1]} must both be text")
    if not shared:
        # Parquet gives every message every key, and a template takes a null one for one that was set.
        return {key: value for key, value in message.items() if value is not None}
    if role not in _ROLES:
        raise GradexError(f"{place}: column {column!r}: from is {role!r}, none of {', '.join(_ROLES)}")
    return {"role": _ROLES[role], "content": content}
