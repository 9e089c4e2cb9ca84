"""A conversation through the tokenizer's chat template, and which characters the assistant wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gradex_fast.data.cells import is_text
from gradex_fast.errors import GradexError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Conversation(NamedTuple):
    """The rendered text, special tokens included; the loss is taken on the spans [start, end)."""

    text: str
    spans: tuple[tuple[int, int], ...]


def render(messages: Any, tokenizer: PreTrainedTokenizerBase, place: str) -> Conversation:
    """Render `messages`, a list of {"role", "content"}; every assistant turn is a span.

    A turn is what the template adds to the generation prompt before it, its end marker included.

    Raises:
        GradexError: no template, malformed messages, or a template that refuses them or that
            renders a turn otherwise once others follow (so that its place cannot be told).
    """
    if not getattr(tokenizer, "chat_template", None):
        raise GradexError(
            f"{place}: messages need a chat template and this tokenizer has none; use prompt and completion columns"
        )
    if not tokenizer.is_fast:  # the slow ones cannot say which characters a token stands for
        raise GradexError(f"{place}: messages need a fast tokenizer; use prompt and completion columns")
    turns = [_turn(message, place) for message in _listed(messages, place)]
    text = _rendered(turns, tokenizer, place)
    spoken = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
    return Conversation(text, tuple(_span(turns, i, text, tokenizer, place) for i in spoken))


def _span(turns: list[dict], index: int, text: str, tokenizer: Any, place: str) -> tuple[int, int]:
    before = _rendered(turns[:index], tokenizer, place, add_generation_prompt=True)
    if not text.startswith(before):  # some prompts open a thought that the turn itself lacks
        before = _rendered(turns[:index], tokenizer, place)
    after = _rendered(turns[: index + 1], tokenizer, place)
    if not (text.startswith(after) and after.startswith(before)):
        raise GradexError(
            f"{place}: the chat template rewrites earlier turns, so message {index + 1} cannot be "
            "told from its context; use one assistant turn a row, or prompt and completion"
        )
    return len(before), len(after)


def _rendered(turns: list[dict], tokenizer: Any, place: str, **options: bool) -> str:
    if not turns:
        return ""
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, **options)
    except Exception as error:  # the template is the model's own program
        reason = " ".join(str(error).split())
        raise GradexError(f"{place}: the chat template refuses the messages: {reason}") from error


def _listed(messages: Any, place: str) -> list[Any]:
    if not isinstance(messages, list) or not messages:
        raise GradexError(f"{place}: column 'messages' must be a list of role and content")
    return messages


def _turn(message: Any, place: str) -> dict[str, Any]:
    role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
    if not (is_text(role) and is_text(content)):
        raise GradexError(f"{place}: column 'messages': role and content must both be text")
    # Parquet gives every message every key, and a template takes a null one for one that was set.
    return {key: value for key, value in message.items() if value is not None}
