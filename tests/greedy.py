"""Greedy selection by its definition, over the float64 reference: what `gradex_fast.select` must find faster."""

from __future__ import annotations

import numpy as np

from gradex_fast.estimate import SubsetEstimator
from gradex_fast.reference import solve as reference
from gradex_fast.types import Sketches

TIE = 1e-9
"""Relative gap of two losses under which either is right."""


def some_sketches(draw, features: np.ndarray) -> Sketches:
    margin = 0.5 + draw.standard_normal(len(features))
    return Sketches(features.astype(np.float32), margin, np.logaddexp(0, -margin))


def make_estimator(seed, sizes, dim, *, lean=0.5, **options) -> SubsetEstimator:
    """Sources of sizes[t] rows whose gradients lean each their own way; 20 validation rows."""
    draw = np.random.default_rng(seed)
    n, group_of_row = len(sizes), np.repeat(np.arange(len(sizes)), sizes)
    leans = 0.3 + lean * draw.standard_normal((n, dim))
    rows = (draw.standard_normal((len(group_of_row), dim)) + leans[group_of_row]) / np.sqrt(dim)
    valid = (draw.standard_normal((20, dim)) + 0.3) / np.sqrt(dim)
    return SubsetEstimator(some_sketches(draw, rows), group_of_row, some_sketches(draw, valid), count=n, **options)


class Exhaustive:
    """Exact f̂ of any subset, each solved once."""

    def __init__(self, made: SubsetEstimator) -> None:
        self._l2, self._bounds = made.l2, made.group_ptr
        self._train, self._valid = ((part.g.astype(np.float64), part.margin) for part in (made.train, made.valid))
        self._known: dict[bytes, float] = {}

    def x(self, mask: np.ndarray) -> np.ndarray:
        """The minimum over the groups of mask [n]; 0 where they have no rows."""
        features, margins = self._train
        rows = np.repeat(mask, np.diff(self._bounds))
        if not rows.any():
            return np.zeros(features.shape[1])
        return reference.minimize(features[rows], margins[rows], np.ones(rows.sum()), self._l2, tol=1e-14)

    def loss_at(self, x: np.ndarray) -> float:
        features, margins = self._valid
        return float(np.logaddexp(0, -(margins + features @ x)).mean())

    def loss(self, mask: np.ndarray) -> float:
        key = mask.tobytes()
        if key not in self._known:
            self._known[key] = self.loss_at(self.x(mask))
        return self._known[key]

    def after(self, mask: np.ndarray, moves) -> np.ndarray:
        """Losses after each of the moves, groups to toggle."""
        return np.array([self.loss(mask ^ (np.arange(len(mask)) == move)) for move in moves])
