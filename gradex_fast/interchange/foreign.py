"""What is read of another tool's folder: sketches, and whatever else it says of its rows and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradex_fast.types import Sketches


@dataclass(frozen=True)
class ForeignSketches(Sketches):
    """Sketches that another tool may have made: of which function, and with which P, is for the reader to know.

    Attributes:
        margin, loss: NaN where the form says nothing of them.
        ids: the rows' names [n], or None.
        modules: columns of each module, in the form that has any.
    """

    ids: Sequence[str] | None = None
    modules: Mapping[str, slice] | None = None


def unknown(rows: int) -> np.ndarray:
    """NaN [n]: a margin or loss that nobody wrote down."""
    return np.full(rows, np.nan)
