"""What the subset regressions' own arithmetic comes to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

_STEPS = 8
"""Looks at its rows that solving one move of a greedy search takes: the search does not tell."""


@dataclass
class Tally:
    """FLOPs of solves and estimates so far, worked out from sizes and steps: right to a factor of two or so.

    Attributes:
        lifted: evaluations of the model at θ* + P x / √d, each a forward pass over the validation rows.
    """

    flops: float = 0.0
    lifted: int = 0

    def since(self, before: Tally) -> Tally:
        return Tally(self.flops - before.flops, self.lifted - before.lifted)

    def copy(self) -> Tally:
        return replace(self)

    def solved(self, rows: np.ndarray, iterations: np.ndarray, whole: int, dim: int) -> None:
        """Subsets of so many rows [m], in so many steps [m], of `whole` rows whose Hessians they start from.

        A look at the loss and the gradient: 4 d a row. Hessians: d² a row, and d³ / 3 to factor a subset's.
        """
        looks = 4.0 * dim * float(np.sum(rows * (iterations + 1.0)))
        self.flops += looks + whole * dim**2 + len(rows) * dim**3 / 3

    def moved(self, moves: int, solved: int, rows: int, judged: int, dim: int) -> None:
        """A step of a greedy search: one Newton step for every move, its losses on `judged` rows, and some solves."""
        self.flops += rows * (dim**2 + 4.0 * dim) + moves * (dim**3 / 3 + 2.0 * dim * judged)
        self.flops += 4.0 * dim * rows * _STEPS * solved

    def judged(self, points: int, rows: int, dim: int, resamplings: int) -> None:
        """Losses of so many validation rows at so many x, and the means of their resamplings."""
        self.flops += 2.0 * points * rows * (dim + resamplings)
