"""Prompt and completion: two columns, two templates over columns, or Alpaca's three columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from gradex_fast.data.cells import is_text, optional_text, text_of
from gradex_fast.data.files import Row
from gradex_fast.data_sections import FileRecipe
from gradex_fast.errors import GradexError
from gradex_fast.text_template import Words, columns_of, fill

_TASK = "Below is an instruction that describes a task"
_WRITE = "Write a response that appropriately completes the request.\n\n"
ALPACA = _TASK + ". " + _WRITE + "### Instruction:\n{instruction}\n\n### Response:\n"
ALPACA_INPUT = (
    _TASK + ", paired with an input that provides further context. " + _WRITE
    + "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)  # fmt: skip


class Completion(NamedTuple):
    """The loss is taken on `completion`, or everywhere; plain text is a completion of nothing."""

    prompt: str
    completion: str
    everywhere: bool = False


def prompted(row: Row, getters: Sequence[Callable[[Row], str]], everywhere: bool) -> Completion:
    prompt, completion = (get(row) for get in getters)
    return Completion(prompt, completion, everywhere)


def alpaca(row: Row, everywhere: bool) -> Completion:
    instruction, context = text_of(row, "instruction"), optional_text(row, "input")
    template = ALPACA_INPUT if context else ALPACA
    prompt = template.format(instruction=instruction, input=context)
    return Completion(prompt, text_of(row, "output"), everywhere)


def text_getter(file: FileRecipe, part: str, column: str | None, columns: Any) -> Callable[[Row], str]:
    """How to get the text of `part`, prompt or completion: from `column`, or by the recipe's template.

    Raises:
        GradexError: the template has a column that no row has.
    """
    if column is not None:
        return partial(text_of, column=column)
    template = getattr(file, f"{part}_template")
    if missing := next((name for name in columns_of(template) if name not in columns), None):
        raise GradexError(
            f"{file.path}: {part}_template has the column {missing!r}, which no row has (columns: {', '.join(columns)})"
        )
    return partial(_filled, part=part, template=template, words=file.words)


def _filled(row: Row, part: str, template: str, words: Words) -> str:
    try:
        text = fill(template, row.values, words)
    except ValueError as error:
        raise GradexError(f"{row.place}: {part}_template: {error}") from error
    if not is_text(text):
        raise GradexError(f"{row.place}: {part}_template: a column is broken Unicode, not text")
    return text
