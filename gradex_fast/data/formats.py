"""Which columns of a row mean what: rows become text to tokenise. Knows no token."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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


class Form(NamedTuple):
    """What a file's rows are, and the columns that hold it in the order of the kind's converter."""

    kind: Literal["completion", "alpaca", "messages", "text", "labelled"]
    columns: tuple[str | None, ...]


def samples(
    rows: Sequence[Row], file: FileRecipe, model: ModelRecipe, tokenizer: PreTrainedTokenizerBase
) -> list[Sample]:
    """The text of each row, by the columns that `file` names or else by the columns there are.

    Raises:
        GradexError: no known format, or a row (named) whose column is missing, null or not text.
    """
    form = form_of(file, model, dict.fromkeys(column for row in rows for column in row.values))
    convert = _CONVERTERS[form.kind]
    options = {"messages": {"tokenizer": tokenizer}, "labelled": {"labels": model.labels}}.get(form.kind, {})
    return [convert(row, form.columns, **options) for row in rows]


def form_of(file: FileRecipe, model: ModelRecipe, columns: Mapping[str, Any]) -> Form:
    """What rows with these columns are, by the columns that `file` names or else by those there are.

    One row of a file that was read is the same as the whole file: it has every column that the file's form needs.

    Raises:
        GradexError: no known format.
    """
    return _classifier(file, model, columns) if model.task == "sequence-classification" else _language(file, columns)


def _language(file: FileRecipe, columns: Mapping[str, Any]) -> Form:
    _refuse(file, "text_pair", "label", reason="model.task is causal-lm")
    if file.prompt or file.completion:
        _refuse(file, "text", reason="prompt or completion is named as well")
        return Form("completion", (file.prompt or "prompt", file.completion or "completion"))
    if file.text:
        return Form("text", (file.text,))
    known = (
        Form("completion", ("prompt", "completion")),
        Form("alpaca", ("instruction", "output")),
        Form("messages", ("messages",)),
        Form("text", ("text",)),
    )
    for form in known:
        if columns.keys() >= set(form.columns):
            return form
    raise GradexError(_unknown(file, columns, _LANGUAGE, "prompt and completion, or text"))


def _classifier(file: FileRecipe, model: ModelRecipe, columns: Mapping[str, Any]) -> Form:
    _refuse(file, "prompt", "completion", reason="model.task is sequence-classification")
    if model.labels is None:
        raise GradexError("model.labels, the number of classes, must be set for a classifier")
    if not (file.text or "text" in columns) or not (file.label or "label" in columns):
        raise GradexError(_unknown(file, columns, _CLASSIFIER, "text and label"))
    pair = file.text_pair or next((name for name in ("text_pair", "text2") if name in columns), None)
    return Form("labelled", (file.text or "text", pair, file.label or "label"))


def _prompted(row: Row, columns: tuple[str, str]) -> Completion:
    prompt, completion = columns
    return Completion(text_of(row, prompt), text_of(row, completion))


def _plain(row: Row, columns: tuple[str]) -> Completion:
    return Completion("", text_of(row, columns[0]))


def _alpaca(row: Row, columns: tuple[str, str]) -> Completion:
    instruction, context = text_of(row, "instruction"), optional_text(row, "input")
    template = ALPACA_INPUT if context else ALPACA
    return Completion(template.format(instruction=instruction, input=context), text_of(row, "output"))


def _chat(row: Row, columns: tuple[str], tokenizer: Any) -> Conversation:
    return render(cell(row, columns[0]), tokenizer, row.place)


def _labelled(row: Row, columns: tuple[str, str | None, str], labels: int) -> Labelled:
    text, pair, label = columns
    second = optional_text(row, pair) if pair else None
    return Labelled(text_of(row, text), second or None, class_of(row, label, labels))


_CONVERTERS: dict[str, Callable[..., Sample]] = {
    "completion": _prompted,
    "alpaca": _alpaca,
    "messages": _chat,
    "text": _plain,
    "labelled": _labelled,
}


def _refuse(file: FileRecipe, *names: str, reason: str) -> None:
    for name in names:
        if getattr(file, name) is not None:
            raise GradexError(f"{file.path}: no use for {name}: {getattr(file, name)!r}; {reason}")


def _unknown(file: FileRecipe, columns: Any, formats: str, options: str) -> str:
    found = ", ".join(columns) or "none"
    return (
        f"{file.path}: columns {found} are of no known format ({formats}); name the columns in the recipe ({options})"
    )
