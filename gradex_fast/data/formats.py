"""Which columns of a row mean what: rows become text to tokenise. Knows no token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gradex_fast.data.cells import class_of, optional_text, text_of
from gradex_fast.data.chat import Conversation, converse, turns_of, way_of
from gradex_fast.data.files import Row
from gradex_fast.data.prompts import Completion, alpaca, prompted, text_getter
from gradex_fast.data_sections import DataRecipe, FileRecipe
from gradex_fast.errors import GradexError
from gradex_fast.sections import ModelRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LANGUAGE = "prompt+completion, instruction(+input)+output, messages, conversations, text"
_CLASSIFIER = "text(+text2 or text_pair)+label"
_PARTS = ("prompt", "completion")
_CHATS = ("messages", "conversations")


class Labelled(NamedTuple):
    """A text, or a pair of them, and its class."""

    text: str
    pair: str | None
    label: int


Sample = Completion | Conversation | Labelled


class Format(NamedTuple):
    """What a file's rows are, and how one of them becomes text; all rows give the same kind of sample.

    Attributes:
        name: for people. kind, columns: what the rows are, and the columns that hold it (None: a template has them).
    """

    name: str
    convert: Callable[[Row], Sample]
    kind: Literal["completion", "alpaca", "messages", "said", "text", "labelled"]
    columns: tuple[str | None, ...]


def format_of(
    rows: Sequence[Row], file: FileRecipe, model: ModelRecipe, data: DataRecipe, tokenizer: PreTrainedTokenizerBase
) -> Format:
    """The format of `rows`, by the columns that `file` names or else by the columns there are.

    Its `convert` raises GradexError for a row (named) whose column is missing, null or not text.

    Raises:
        GradexError: no known format, or an option of the loss that it does not have.
    """
    columns = dict.fromkeys(column for row in rows for column in row.values)
    if model.task == "sequence-classification":
        return _classifier(file, model, columns)
    _refuse(file, "text_pair", "label", reason="model.task is causal-lm")
    if (names := _prompt_columns(file, columns)) is not None:
        return _prompt(names, rows, file, data, columns, tokenizer)
    if file.messages:
        _refuse(file, "text", reason="messages is named as well")
        return _chat(file.messages, file, data, tokenizer)
    if file.text:
        return _plain(file, data)
    if {"instruction", "output"} <= columns.keys():
        return _completion("alpaca", ("instruction", "output"), alpaca, file, data)
    if chat := next((name for name in _CHATS if name in columns), None):
        return _chat(chat, file, data, tokenizer)
    if "text" in columns:
        return _plain(file, data)
    raise GradexError(_unknown(file, columns, _LANGUAGE, "prompt and completion, messages, or text"))


def _prompt_columns(file: FileRecipe, columns: Any) -> tuple[str | None, str | None] | None:
    """The columns of prompt and completion, None for a template's; None if the rows are of another format."""
    named = any(getattr(file, name) is not None for part in _PARTS for name in (part, f"{part}_template"))
    if not named and (file.text or file.messages or not {*_PARTS} <= columns.keys()):
        return None
    _refuse(file, "text", "messages", reason="prompt or completion is named as well")
    prompt, completion = (None if getattr(file, f"{part}_template") else getattr(file, part) or part for part in _PARTS)
    return prompt, completion


def _prompt(
    names: Any, rows: Sequence[Row], file: FileRecipe, data: DataRecipe, columns: Any, tokenizer: Any
) -> Format:
    if all(name and isinstance(rows[0].values.get(name), list) for name in names):
        return _said_prompt(names, data, tokenizer)
    getters = [text_getter(file, part, name, columns) for part, name in zip(_PARTS, names, strict=True)]
    return _completion("completion", names, partial(prompted, getters=getters), file, data)


def _completion(
    kind: Any, columns: Any, convert: Callable[..., Completion], file: FileRecipe, data: DataRecipe
) -> Format:
    name = "prompt and completion" if kind == "completion" else kind
    if data.assistant_only_loss:
        raise GradexError(f"{file.path}: data.assistant_only_loss is for conversations, not for {name}; leave it out")
    everywhere = data.completion_only_loss is False
    loss = "every token" if everywhere else "the completion"
    return Format(f"{name}: loss on {loss}", partial(convert, everywhere=everywhere), kind, columns)


def _plain(file: FileRecipe, data: DataRecipe) -> Format:
    for option in ("completion_only_loss", "assistant_only_loss"):
        if getattr(data, option):
            raise GradexError(f"{file.path}: data.{option} has no meaning for plain text; leave it out")

    column = file.text or "text"

    def convert(row: Row) -> Completion:
        return Completion("", text_of(row, column))

    return Format("text: loss on every token", convert, "text", (column,))


def _chat(column: str, file: FileRecipe, data: DataRecipe, tokenizer: Any) -> Format:
    if data.completion_only_loss:
        raise GradexError(
            f"{file.path}: data.completion_only_loss is for prompt and completion; for conversations there is "
            "data.assistant_only_loss"
        )
    everywhere = data.assistant_only_loss is False
    way = "every token" if everywhere else f"assistant turns ({way_of(tokenizer)})"

    def convert(row: Row) -> Conversation:
        return converse(turns_of(row, column), tokenizer, row.place, everywhere=everywhere)

    return Format(f"conversation: loss on {way}", convert, "messages", (column,))


def _said_prompt(names: Any, data: DataRecipe, tokenizer: Any) -> Format:
    """trl's conversational prompt and completion: two lists of messages."""
    assistant, everywhere = bool(data.assistant_only_loss), data.completion_only_loss is False
    tokens = f"assistant turns ({way_of(tokenizer)})" if assistant else "every token"
    where = "" if everywhere else " of the completion"

    def convert(row: Row) -> Conversation:
        prompt, completion = (turns_of(row, name) for name in names)
        options = {"everywhere": not assistant, "start": 0 if everywhere else len(prompt)}
        return converse([*prompt, *completion], tokenizer, row.place, **options)

    return Format(f"conversation in prompt and completion: loss on {tokens}{where}", convert, "said", names)


def _classifier(file: FileRecipe, model: ModelRecipe, columns: Any) -> Format:
    names = ("prompt", "completion", "prompt_template", "completion_template", "messages")
    _refuse(file, *names, reason="model.task is sequence-classification")
    if model.labels is None:
        raise GradexError("model.labels, the number of classes, must be set for a classifier")
    if not (file.text or "text" in columns) or not (file.label or "label" in columns):
        raise GradexError(_unknown(file, columns, _CLASSIFIER, "text and label"))
    pair = file.text_pair or next((name for name in ("text_pair", "text2") if name in columns), None)
    found = file.text or "text", pair, file.label or "label"
    convert = partial(_labelled, columns=found, labels=model.labels)
    return Format("text and label: loss on the class", convert, "labelled", found)


def _labelled(row: Row, columns: tuple[str, str | None, str], labels: int) -> Labelled:
    text, pair, label = columns
    second = optional_text(row, pair) if pair else None
    return Labelled(text_of(row, text), second or None, class_of(row, label, labels))


def _refuse(file: FileRecipe, *names: str, reason: str) -> None:
    for name in names:
        if getattr(file, name) is not None:
            raise GradexError(f"{file.path}: no use for {name}: {getattr(file, name)!r}; {reason}")


def _unknown(file: FileRecipe, columns: Any, formats: str, options: str) -> str:
    found = ", ".join(columns) or "none"
    return (
        f"{file.path}: columns {found} are of no known format ({formats}); name the columns in the recipe ({options})"
    )
