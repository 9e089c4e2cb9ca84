"""Logistic regressions with labels, an offset and an intercept, put as problems of the subset solver.

In scikit-learn's terms, over the rows i of a subset, with labels y_i = ±1, offsets o_i and weights s_i:

    F(w, b) = C Σ_i s_i softplus(−y_i (o_i + w·x_i + b)) + ½‖w‖²  [+ ½b² where the intercept is penalised]

which is C·W times the solver's objective with features y x, margins y o, any divisor W and l2 = 1 / (C W).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from gradex_fast.regression import SubsetSolver

BLOCK = 1 << 24
"""Entries of the largest array that is made on the way, but for the solver's own rows."""


class Intercept(Enum):
    """NONE: b = 0. PENALISED: one more coefficient, of a column of ones. FREE: not in the penalty."""

    NONE = "none"
    PENALISED = "penalised"
    FREE = "free"


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """x [N, d] float32 or float64; signs [N], y = ±1; offset [N]; weight [N], s ≥ 0, of a positive sum."""

    x: np.ndarray
    signs: np.ndarray
    offset: np.ndarray
    weight: np.ndarray

    def at(self, rows: np.ndarray | slice) -> LabelledRows:
        return LabelledRows(self.x[rows], self.signs[rows], self.offset[rows], self.weight[rows])

    def blocks(self) -> Iterator[LabelledRows]:
        return map(self.at, blocks(*self.x.shape))

    def mean(self) -> np.ndarray:
        """float64 [d], of x by weight."""
        return sum(part.weight @ part.x for part in self.blocks()) / self.weight.sum()


@dataclass(frozen=True, eq=False)
class Fits:
    """coefficients [m, d], intercepts [m], losses [m] (F at them), all float64; iterations, status int32 [m]."""

    coefficients: np.ndarray
    intercepts: np.ndarray
    losses: np.ndarray
    iterations: np.ndarray
    status: np.ndarray


@dataclass(frozen=True, eq=False)
class Columns:
    """How w and b stand in the solver's x: features are y (x − centre), then y · scale where there is an intercept.

    The solver penalises (b / scale)², next to nothing for a large scale. Centred features leave F as it is, because
    a free b takes up w·centre, and lose less to float32.
    """

    centre: np.ndarray
    scale: float

    @classmethod
    def of(cls, rows: LabelledRows, intercept: Intercept, l2: float) -> Columns:
        """A free intercept's own l2 is then at most 1e-10, where p (1 − p) is the curvature that it has from its rows.

        Where the labels are separable the curvature is of the size of l2 itself, and b of that of w·x: there scale is
        a thousand times the features. A power of two is exact in every format of the solver.
        """
        if intercept is not Intercept.FREE:
            return cls(np.zeros(rows.x.shape[1]), float(intercept is Intercept.PENALISED))
        centre, square = rows.mean(), 0.0
        for part in rows.blocks():
            square += part.weight @ np.square(part.x - centre).sum(axis=1) / rows.weight.sum()
        return cls(centre, 2.0 ** np.ceil(np.log2(max(1e5 * np.sqrt(l2), 1e3 * np.sqrt(square)))))

    def features(self, rows: LabelledRows) -> np.ndarray:
        """float32 [N, d (+ 1)].

        Raises:
            ValueError: a number is too large for float32.
        """
        count, dim = rows.x.shape
        with np.errstate(over="ignore"):
            matrix = np.full((count, dim + (self.scale > 0)), self.scale, np.float32)
            np.subtract(rows.x, self.centre, out=matrix[:, :dim], casting="same_kind")
        matrix *= rows.signs.astype(np.float32)[:, None]
        if not np.isfinite(matrix).all():
            raise ValueError("X is too large for float32, or C too small: scale the features")
        return matrix

    def original(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """w [m, d] and b [m] from the solver's x."""
        w = x[:, : len(self.centre)].copy()
        return w, self.scale * x[:, -1] - w @ self.centre if self.scale else np.zeros(len(w))


def fit_subsets(
    rows: LabelledRows,
    groups: np.ndarray,
    subsets: np.ndarray,
    *,
    C: float,
    intercept: Intercept,
    tol: float,
    max_iterations: int,
    threads: int,
) -> Fits:
    """argmin F over the rows of every subset. groups: int [N], a row's group; subsets: bool [m, n].

    A subset's F comes within `tol` of its minimum, relative to it (see `SubsetSolver.solve`), but for two things: the
    solver rounds x to float32, and has a penalty for a free intercept, as `Columns.of` says.

    Raises:
        ValueError: a number is too large for float32.
    """
    if (np.diff(groups) < 0).any():
        order = np.argsort(groups, kind="stable")
        rows, groups = rows.at(order), groups[order]
    weights = subsets @ np.bincount(groups, rows.weight, subsets.shape[1])
    divisor = weights[weights > 0].mean() if weights.any() else 1.0
    columns = Columns.of(rows, intercept, l2=1 / (C * divisor))
    pointer = np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=subsets.shape[1]))])
    options = {"weights": rows.weight, "divisor": divisor, "threads": threads}
    solver = SubsetSolver(columns.features(rows), rows.signs * rows.offset, pointer, **options)
    limits = {"tol": tol, "max_iterations": max_iterations, "threads": threads}
    found = solver.solve(subsets, l2=1 / (C * divisor), **limits)
    w, b = columns.original(found.x)
    losses = C * _sums(rows, groups, subsets, w, b) + np.square(w).sum(axis=1) / 2
    if intercept is Intercept.PENALISED:
        losses += np.square(b) / 2
    return Fits(w, b, losses, found.iterations, found.status)


def _sums(rows: LabelledRows, groups: np.ndarray, subsets: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Σ_i s_i softplus(−y_i (o_i + w·x_i + b)) over every subset, in float64: [m]."""
    sums = np.zeros(len(w))
    for part in blocks(len(rows.x), max(w.shape)):
        z = rows.x[part] @ w.T + b + rows.offset[part, None]
        losses = np.logaddexp(0, -rows.signs[part, None] * z)
        sums += rows.weight[part] @ (losses * subsets.T[groups[part]])
    return sums


def blocks(count: int, width: int) -> list[slice]:
    """`count` rows in slices of at most `BLOCK` entries."""
    size = max(1, BLOCK // max(1, width))
    return [slice(first, first + size) for first in range(0, count, size)]
