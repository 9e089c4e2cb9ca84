"""Figures and names as a report writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from markupsafe import Markup
from rich.cells import cell_len, set_cell_size

UNKNOWN = "\N{EN DASH}"


def interval(source: Mapping[str, Any], places: int) -> str:
    if not finite(source.get("score")):
        return UNKNOWN
    score = f"{source['score']:.{places}f}"
    if not (finite(source.get("low")) and finite(source.get("high"))):
        return score
    return f"{score} ± {(source['high'] - source['low']) / 2:.{places}f}"


def number(value: Any, digits: int = 4) -> str:
    """So many significant digits; a dash for None, NaN and what is absent; text as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return f"{value:,}"
    return f"{value:#.{digits}g}".rstrip(".") if finite(value) else UNKNOWN


def change(value: Any, reference: Any) -> str:
    """How far `value` lies under or over `reference`, in per cent; empty if that means nothing."""
    if not (finite(value) and finite(reference) and reference > 0):
        return ""
    percent = 100 * (value / reference - 1)
    if value == reference:
        return "the same"
    return f"{abs(percent):.3g} % {'lower' if percent < 0 else 'higher'}"


def finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def printable(text: str) -> str:
    r"""Line breaks, escape codes and reversed writing spelt out, as in ``\n``; one line always."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def clipped(text: Any, cells: int) -> str:
    """`printable`, in no more than so many of a terminal's cells; an ellipsis for the rest."""
    shown = printable(str(text)[: 2 * cells])
    if len(str(text)) <= 2 * cells and cell_len(shown) <= cells:
        return shown
    return set_cell_size(shown, cells - 1).rstrip() + "…"


def markdown(value: Any) -> str:
    """Text from data, inert in GitHub Markdown and inside its table cells."""
    if isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*_~$|&<>\[\]])", r"\\\1", printable(str(value)))


def indented(text: str) -> Markup:
    """A block of code in Markdown."""
    return Markup("".join(f"    {line}\n" for line in text.splitlines()))
