"""Which columns of a row mean what: rows become text to tokenise. Knows no token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from gradex_fast.data.cells import cell, class_of, optional_text, text_of
from gradex_fast.data.chat import Conversation, render
from gradex_fast.data.files import Row
from gradex_fast.errors import GradexError
from gradex_fast.sections import FileRecipe, ModelRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TASK = "Below is an instruction that describes a task"
_WRITE = "Write a response that appropriately completes the request.\n\n"
ALPACA = _TASK + ". " + _WRITE + "### Instruction:\n{instruction}\n\n### Response:\n"
ALPACA_INPUT = (
    _TASK + ", paired with an input that provides further context. " + _WRITE
    + "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)  # fmt: skip

_LANGUAGE = "prompt+completion, instruction(+input)+output, messages, text"
_CLASSIFIER = "text(+text2 or text_pair)+label"


class Completion(NamedTuple):
    """The loss is taken on `completion`; plain text is a completion of nothing."""

    prompt: str
    completion: str


class Labelled(NamedTuple):
    """A text, or a pair of them, and its class."""

    text: str
    pair: str | None
    label: int


Sample = Completion | Conversation | Labelled


def samples(
    rows: Sequence[Row], file: FileRecipe, model: ModelRecipe, tokenizer: PreTrainedTokenizerBase
) -> list[Sample]:
    """The text of each row, by the columns that `file` names or else by the columns there are.

    Raises:
        GradexError: no known format, or a row (named) whose column is missing, null or not text.
    """
    columns = dict.fromkeys(column for row in rows for column in row.values)
    if model.task == "sequence-classification":
        convert = _classifier(file, model, columns)
    else:
        convert = _language(file, columns, tokenizer)
    return [convert(row) for row in rows]


def _language(file: FileRecipe, columns: Any, tokenizer: Any) -> Callable[[Row], Sample]:
    _refuse(file, "text_pair", "label", reason="model.task is causal-lm")
    if file.prompt or file.completion:
        _refuse(file, "text", reason="prompt or completion is named as well")
        names = file.prompt or "prompt", file.completion or "completion"
        return partial(_prompted, columns=names)
    if file.text:
        return partial(_plain, column=file.text)
    known = (
        ({"prompt", "completion"}, partial(_prompted, columns=("prompt", "completion"))),
        ({"instruction", "output"}, _alpaca),
        ({"messages"}, partial(_chat, tokenizer=tokenizer)),
        ({"text"}, partial(_plain, column="text")),
    )
    for needed, convert in known:
        if needed <= columns.keys():
            return convert
    raise GradexError(_unknown(file, columns, _LANGUAGE, "prompt and completion, or text"))


def _classifier(file: FileRecipe, model: ModelRecipe, columns: Any) -> Callable[[Row], Sample]:
    _refuse(file, "prompt", "completion", reason="model.task is sequence-classification")
    if model.labels is None:
        raise GradexError("model.labels, the number of classes, must be set for a classifier")
    if not (file.text or "text" in columns) or not (file.label or "label" in columns):
        raise GradexError(_unknown(file, columns, _CLASSIFIER, "text and label"))
    pair = file.text_pair or next((name for name in ("text_pair", "text2") if name in columns), None)
    names = file.text or "text", pair, file.label or "label"
    return partial(_labelled, columns=names, labels=model.labels)


def _prompted(row: Row, columns: tuple[str, str]) -> Completion:
    prompt, completion = columns
    return Completion(text_of(row, prompt), text_of(row, completion))


def _plain(row: Row, column: str) -> Completion:
    return Completion("", text_of(row, column))


def _alpaca(row: Row) -> Completion:
    instruction, context = text_of(row, "instruction"), optional_text(row, "input")
    template = ALPACA_INPUT if context else ALPACA
    return Completion(template.format(instruction=instruction, input=context), text_of(row, "output"))


def _chat(row: Row, tokenizer: Any) -> Conversation:
    return render(cell(row, "messages"), tokenizer, row.place)


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
