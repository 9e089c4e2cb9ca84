"""What selection asks of an estimator, and the order in which it looks at the sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gradex_fast.types import Estimates


class Estimator(Protocol):
    """What selection asks of `SubsetEstimator`, whose `moves()` is a way to search that others need not have."""

    groups: int
    always: Sequence[int]
    resampling: np.ndarray

    @property
    def candidates(self) -> np.ndarray: ...
    def estimate(self, subsets: np.ndarray) -> Estimates: ...
    def rows(self, x: np.ndarray) -> np.ndarray: ...


def mask_of(estimator: Estimator, members: Sequence[int] | np.ndarray) -> np.ndarray:
    """bool [n]: the members and every `always` group."""
    mask = np.zeros(estimator.groups, bool)
    mask[[*members, *estimator.always]] = True
    return mask


def in_tie_order(candidates: np.ndarray, seed: int) -> np.ndarray:
    """The candidates in an order drawn from the seed: of equals the first of it is taken, whatever its index."""
    return np.random.default_rng([seed, 1]).permutation(candidates)


def joined(parts: Sequence[Estimates]) -> Estimates:
    """The estimates of several batches of subsets as one."""
    return Estimates(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("loss", "low", "high", "x"))
    )
