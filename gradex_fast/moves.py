"""Steps of a greedy search: the best of the subsets that differ from one subset by one group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gradex_fast.kernels import NeighbourSearch
from gradex_fast.types import Estimates


@dataclass(frozen=True)
class Step:
    """The best move.

    Attributes:
        move: its position among the moves.
        loss: f̂ after it. gain: how much lower that is; infinite where there was nothing to train on.
        subsets: bool [t, n], those whose `estimates` were made.
    """

    move: int
    loss: float
    gain: float
    subsets: np.ndarray
    estimates: Estimates


class Moves(Protocol):
    def best(self, mask: np.ndarray, moves: np.ndarray, now: float) -> Step:
        """The move from mask [n] of lowest f̂, the first of equals; now: f̂ of mask, infinite if that is empty."""

    def solve(self, mask: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """x of mask and of every move from it: [1 + moves, d]."""


def toggled(mask: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """bool [moves, n]: `mask` with one of the moves made in each row."""
    trials = np.repeat(mask[None], len(moves), axis=0)
    trials[np.arange(len(moves)), moves] ^= True
    return trials


class EveryMove:
    """An estimate of its own for every move; for any estimator."""

    def __init__(self, estimator) -> None:
        self._estimator = estimator

    def best(self, mask: np.ndarray, moves: np.ndarray, now: float) -> Step:
        trials = toggled(mask, moves)
        estimates = self._estimator.estimate(trials)
        winner = int(np.argmin(estimates.loss))
        loss = float(estimates.loss[winner])
        return Step(winner, loss, now - loss, trials, estimates)

    def solve(self, mask: np.ndarray, moves: np.ndarray) -> np.ndarray:
        return self._estimator.estimate(np.concatenate([mask[None], toggled(mask, moves)])).x


class ScreenedMoves:
    """The same choice by a `NeighbourSearch`, which solves only the moves that may be the best.

    Args:
        estimator: turns x [m, d] into `Estimates` by `estimates_at`; its f̂ rises with the search's loss.
    """

    def __init__(self, estimator, search: NeighbourSearch) -> None:
        self._estimator, self._search = estimator, search

    def best(self, mask: np.ndarray, moves: np.ndarray, now: float) -> Step:
        found = self._search.best(mask, moves)
        sizes = len(self._estimator.train), *self._estimator.valid.g.shape
        self._estimator.tally.moved(len(moves), found.solved, *sizes)
        estimates = self._estimator.estimates_at(found.x[None])
        gain = found.now - found.loss if np.isfinite(now) else np.inf
        return Step(found.move, float(estimates.loss[0]), gain, toggled(mask, moves[[found.move]]), estimates)

    def solve(self, mask: np.ndarray, moves: np.ndarray) -> np.ndarray:
        here = self._estimator.solve(mask[None]).x
        return np.concatenate([here, self._search.solve(mask, moves)])
