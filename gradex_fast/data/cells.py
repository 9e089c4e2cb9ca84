"""One cell of a row, of the type that it must have; the error names file, line and column."""

from __future__ import annotations

from typing import Any

from gradex_fast.data.files import Row
from gradex_fast.errors import GradexError


def class_of(row: Row, column: str, labels: int) -> int:
    found = cell(row, column)
    value = int(found) if isinstance(found, str) and found.isdecimal() else found  # a CSV has text alone
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < labels:
        raise GradexError(f"{row.place}: column {column!r} is {found!r}, not an integer from 0 to {labels - 1}")
    return value


def optional_text(row: Row, column: str) -> str | None:
    return None if row.values.get(column) is None else text_of(row, column)


def text_of(row: Row, column: str) -> str:
    value = cell(row, column)
    if not is_text(value):
        found = "broken Unicode" if isinstance(value, str) else type(value).__name__
        raise GradexError(f"{row.place}: column {column!r} is {found}, not text")
    return value


def is_text(value: Any) -> bool:
    """Whole characters: JSON can hold half of a surrogate pair, which no tokenizer takes."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def cell(row: Row, column: str) -> Any:
    if column not in row.values:
        found = ", ".join(map(str, row.values)) or "none"
        raise GradexError(f"{row.place}: no column {column!r} (columns: {found})")
    if row.values[column] is None:
        raise GradexError(f"{row.place}: column {column!r} is null")
    return row.values[column]
