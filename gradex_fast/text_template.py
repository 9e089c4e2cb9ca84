"""Text with a row's columns in it, such as ``Q: {question}``; the syntax of `str.format`, without attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from string import Formatter
from typing import Any, NamedTuple

_FIELD = re.compile(r"([^.\[\]!:{}]+)((?:\[[^\[\]]+\])*)")
_KEY = re.compile(r"\[([^\[\]]+)\]")

Words = Mapping[str, Mapping[str, str]]


class Part(NamedTuple):
    """Literal text, and the column after it (None at the end); `keys` lead into its value: ``{choices[text][0]}``."""

    literal: str
    column: str | None
    keys: tuple[str, ...]
    spec: str


@cache
def parse(template: str) -> tuple[Part, ...]:
    """Raises ValueError: not of the syntax, or without a column."""
    try:
        parts = tuple(_part(*found) for found in Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"{template!r} is no template: {error}; braces that are text are doubled") from error
    if not any(part.column for part in parts):
        raise ValueError(f"{template!r} names no column; a column is {{name}}")
    return parts


def columns_of(template: str) -> list[str]:
    return list(dict.fromkeys(part.column for part in parse(template) if part.column))


def fill(template: str, row: Mapping[str, Any], words: Words) -> str:
    """`template` with the values of `row`; a value of a column of `words` becomes its word.

    Raises:
        ValueError: a value is missing, null, a list or an object, has no word, or is not of its format.
    """
    return "".join(part.literal + (_value(part, row, words) if part.column else "") for part in parse(template))


def _part(literal: str, field: str | None, spec: str | None, conversion: str | None) -> Part:
    if field is None:
        return Part(literal, None, (), "")
    found = _FIELD.fullmatch(field)
    if not found or conversion or "{" in (spec or ""):
        raise ValueError(f"{{{field}}} is no column")
    return Part(literal, found[1], tuple(_KEY.findall(found[2])), spec or "")


def _value(part: Part, row: Mapping[str, Any], words: Words) -> str:
    name = part.column + "".join(f"[{key}]" for key in part.keys)
    try:
        value = row[part.column]
        for key in part.keys:
            value = value[int(key)] if isinstance(value, list) else value[key]
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"there is no {name!r}") from None
    if part.column in words:
        value = _word(name, value, words[part.column])
    if value is None or isinstance(value, list | dict):
        raise ValueError(f"{name!r} is {'null' if value is None else 'no single value'}, not text")
    try:
        return format(value, part.spec)
    except ValueError as error:
        raise ValueError(f"{name!r} is {value!r}, not of format {part.spec!r}") from error


def _word(name: str, value: Any, words: Mapping[str, str]) -> str:
    key = ("false", "true")[value] if isinstance(value, bool) else str(value)
    if key not in words:
        raise ValueError(f"{name!r} is {value!r}, for which words has none of {', '.join(words)}")
    return words[key]
