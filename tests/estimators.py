"""A small estimator over five groups of unsorted rows, and one whose f̂ is a known function of the subset."""

from __future__ import annotations

import itertools

import numpy as np

from gradex_fast.estimate import SubsetEstimator
from gradex_fast.types import Estimates, Sketches

GROUPS = np.array([3, 0, 2, 2, 1, 0, 3, 1, 0, 2, 4, 4])
MASKS = np.array(list(itertools.product([False, True], repeat=5))[1:])
"""Every subset but the empty one."""
VALIDATION = 30


def sketches(rows: int, seed: int, dim: int = 6) -> Sketches:
    draw = np.random.default_rng(seed)
    margin = draw.normal(size=rows)
    return Sketches(draw.normal(size=(rows, dim)).astype(np.float32), margin, np.logaddexp(0, -margin))


def estimator(**options) -> SubsetEstimator:
    return SubsetEstimator(sketches(len(GROUPS), 0), GROUPS, sketches(7, 1), **{"ridge": 1.0, **options})


class Known:
    """Loss of row v = 5 + Σ_{i∈S} effect[i, v] + Σ_{i<j∈S} pair[i, j]; x_S is the mask itself."""

    def __init__(self, effects, pairs=None, always=(), spread=0.1):
        self.groups, self.always = len(effects), tuple(always)
        draw = np.random.default_rng(0)
        self.effects = np.asarray(effects, float)[:, None] + draw.normal(scale=spread, size=(self.groups, VALIDATION))
        self.pairs = np.zeros((self.groups, self.groups)) if pairs is None else np.triu(pairs, 1)
        self.resampling = draw.multinomial(VALIDATION, np.full(VALIDATION, 1 / VALIDATION), 40) / VALIDATION
        self.candidates = np.setdiff1d(np.arange(self.groups), always)

    def rows(self, x):
        return 5 + x @ self.effects + ((x @ self.pairs) * x).sum(1, keepdims=True)

    def estimate(self, subsets):
        rows = self.rows(subsets.astype(float))
        low, high = np.quantile(rows @ self.resampling.T, (0.025, 0.975), axis=1)
        return Estimates(rows.mean(1), low, high, subsets.astype(float))

    def loss(self, members) -> float:
        mask = np.zeros((1, self.groups))
        mask[0, [*members, *self.always]] = 1
        return float(self.rows(mask).mean())


def known(seed: int, size: int, always=()) -> Known:
    draw = np.random.default_rng(seed)
    return Known(draw.normal(size=size), draw.normal(scale=0.5, size=(size, size)), always)
