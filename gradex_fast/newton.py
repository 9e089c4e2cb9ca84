"""The last digits of one logistic regression: Newton's steps in float64 on the features as they were given."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradex_fast.logistic import Intercept, LabelledRows
from gradex_fast.reference.solve import sigmoid

LARGEST_DIM = 1024
"""Beyond, a Hessian [d, d] costs more than it is worth."""


class Objective:
    """F of `gradex_fast.logistic`, its gradient and its Hessian at v = (w, b + w·centre) [d + 1].

    Without an intercept the last entry of both derivatives is that of a b that stays 0.
    """

    def __init__(self, rows: LabelledRows, C: float, intercept: Intercept) -> None:
        self.rows, self.C, self.intercept = rows, C, intercept
        free = intercept is Intercept.FREE
        self.centre = rows.mean() if free else np.zeros(rows.x.shape[1])
        self.penalty = np.append(np.ones(rows.x.shape[1]), 0.0 if free else 1.0)

    def value(self, v: np.ndarray) -> float:
        losses = (float(part.weight @ np.logaddexp(0, -self._margins(part, x, v))) for part, x in self._parts())
        return self.C * sum(losses) + v @ (self.penalty * v) / 2

    def derivatives(self, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gradient, hessian = self.penalty * v, np.diag(self.penalty)
        for part, x in self._parts():
            z = self._margins(part, x, v)
            gradient -= self.C * (part.weight * part.signs * sigmoid(-z)) @ x
            hessian += self.C * (x.T * (part.weight * sigmoid(z) * sigmoid(-z))) @ x
        return gradient, hessian

    def _parts(self) -> Iterator[tuple[LabelledRows, np.ndarray]]:
        """A few rows at a time, and their x − centre with the intercept's column: float64 [·, d + 1]."""
        for part in self.rows.blocks():
            last = np.full((len(part.x), 1), float(self.intercept is not Intercept.NONE))
            yield part, np.hstack([part.x - self.centre, last])

    @staticmethod
    def _margins(part: LabelledRows, x: np.ndarray, v: np.ndarray) -> np.ndarray:
        return part.signs * (part.offset + x @ v)


def polish(objective: Objective, w: np.ndarray, b: float, *, steps: int = 10) -> tuple[np.ndarray, float, float, int]:
    """w [d], b, F there, and the steps taken from a point near the minimum.

    Damped; a step that promises less than 1e-8 of F is taken whole and is the last, as its error is of that squared.
    """
    v, taken, last = np.append(w, b + w @ objective.centre), 0, False
    value = objective.value(v)
    while taken < steps and not last:
        gradient, hessian = objective.derivatives(v)
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:  # a free intercept's curvature can underflow
            break
        promised = gradient @ step
        last = promised <= 1e-8 * value
        length = 1.0 if last else _length(objective, v, step, value, promised)
        if length == 0.0:
            break
        v, taken = v - length * step, taken + 1
        value = objective.value(v)
    return v[:-1], float(v[-1] - v[:-1] @ objective.centre), value, taken


def _length(objective: Objective, v: np.ndarray, step: np.ndarray, value: float, promised: float) -> float:
    length = 1.0
    while length > 1e-6:
        if objective.value(v - length * step) <= value - 1e-4 * length * promised:
            return length
        length /= 2
    return 0.0
