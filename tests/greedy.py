"""Greedy selection by its definition, over the float64 reference: what `gradex_fast.select` must find faster."""

from __future__ import annotations

import numpy as np

from gradex_fast.estimate import SubsetEstimator
from gradex_fast.reference import solve as reference
from gradex_fast.types import Sketches

TIE = 1e-9
"""Two losses closer than this share of f̂ are equal: either may be chosen."""


def some_sketches(draw, features: np.ndarray, spread: float) -> Sketches:
    margin = 0.5 + spread * draw.standard_normal(len(features))
    return Sketches(features.astype(np.float32), margin, np.logaddexp(0, -margin))


def make_estimator(seed, sizes, dim, *, scales=1.0, lean=0.5, spread=1.0, **options) -> SubsetEstimator:
    """Sources of sizes[t] rows of about the length scales[t], that lean each their own way; 20 validation rows.

    Every other seed divides by each subset's own rows.
    """
    options = {"divisor": ("typical", "own")[seed % 2], **options}
    draw, count = np.random.default_rng(seed), len(sizes)
    group_of_row = np.repeat(np.arange(count), sizes)
    leans = 0.3 + lean * draw.standard_normal((count, dim))
    rows = (draw.standard_normal((len(group_of_row), dim)) + leans[group_of_row]) / np.sqrt(dim)
    rows *= np.broadcast_to(scales, count)[group_of_row, None]
    valid = (draw.standard_normal((20, dim)) + 0.3) / np.sqrt(dim)
    train, valid = some_sketches(draw, rows, spread), some_sketches(draw, valid, spread)
    return SubsetEstimator(train, group_of_row, valid, count=count, **options)


class Exhaustive:
    """Exact f̂ of any subset, each solved once."""

    def __init__(self, made: SubsetEstimator) -> None:
        self.l2, self._bounds, self._divisor = made.l2, made.group_ptr, made.divisor
        self._train, self._valid = ((part.g.astype(np.float64), part.margin) for part in (made.train, made.valid))
        self._known: dict[bytes, float] = {}

    def problem(self, mask: np.ndarray) -> tuple:
        """The reference objective's arguments over the groups of mask [n]."""
        features, margins = self._train
        rows = np.repeat(mask, np.diff(self._bounds))
        return features[rows], margins[rows], np.ones(rows.sum()), self.l2, self._divisor

    def x(self, mask: np.ndarray) -> np.ndarray:
        """The minimum; 0 where there are no rows, or bad ones."""
        problem = self.problem(mask)
        if not len(problem[1]) or not np.isfinite(problem[1]).all():
            return np.zeros(problem[0].shape[1])
        return reference.minimize(*problem, tol=1e-14)  # so that f̂ is exact to far less than TIE

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


def assert_best(losses: np.ndarray, chosen: int, now: float) -> None:
    """losses[chosen] is the lowest, or ties with it; what tells them apart is a change of `now`."""
    assert losses[chosen] - losses.min() <= TIE * max(now, losses.min()), (chosen, losses, now)
