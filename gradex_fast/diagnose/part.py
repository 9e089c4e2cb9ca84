"""What a part of a diagnosis is: rows of named figures, all of them and those to show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """Attributes: rows: one mapping a line of the CSV, with the same keys. summary: those of the printed table.

    Figures are floats; None where one cannot be worked out.
    """

    rows: Sequence[Row]
    summary: Sequence[Row]
