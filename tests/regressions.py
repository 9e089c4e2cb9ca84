"""Subset regressions with known shapes, and what their solutions must satisfy."""

from __future__ import annotations

import numpy as np
import pytest

from gradex_fast.kernels import Solutions, Status
from gradex_fast.reference import solve as reference

EPS = np.finfo(np.float64).eps


def make_data(sizes, dim, seed=0):
    """Rows of about unit length around a common direction, as gradients are; sizes are rows per group."""
    rng = np.random.default_rng(seed)
    rows = sum(sizes)
    features = (rng.standard_normal((rows, dim)) + 0.3) / np.sqrt(dim)
    pointer = np.concatenate([[0], np.cumsum(sizes)])
    return features.astype(np.float32), 1 + 2 * rng.standard_normal(rows), pointer


def all_and_random(groups, count=4, seed=0):
    masks = np.random.default_rng(seed).random((count, groups)) < 0.6
    masks[0] = True
    return masks


def rows_of(data, mask, weights=None):
    """The arguments (features, margins, weights) of the reference objective for one subset."""
    features, margins, pointer = data
    rows = np.repeat(mask, np.diff(pointer))
    weights = np.ones(len(margins)) if weights is None else weights
    return features[rows].astype(np.float64), margins[rows], weights[rows]


def assert_solved(data, masks, found: Solutions, l2, weights=None, divisor=None, tol=1e-6):
    """F(x) − F* ≤ tol F(x), and λ/2 ‖x − x*‖² ≤ F(x) − F*."""
    best, loss = reference.solve(*data, masks, l2=l2, weights=weights, divisor=divisor)
    for s, mask in enumerate(masks):
        problem = (*rows_of(data, mask, weights), l2, divisor)
        if problem[2].sum() == 0:
            assert found.status[s] == Status.EMPTY
            continue
        assert found.status[s] == Status.CONVERGED
        value, rounding = reference.objective(found.x[s], *problem), 64 * EPS * (1 + np.abs(problem[1]).max())
        assert -rounding <= value - loss[s] <= tol * value + rounding
        assert found.loss[s] == pytest.approx(value, rel=1e-12, abs=rounding)
        assert l2 / 2 * np.sum((found.x[s] - best[s]) ** 2) <= tol * value + rounding


def assert_exact(data, masks, found: Solutions, l2, weights=None, divisor=None):
    """What tol = 0 must reach: loss and gradient norm are true, and the gradient bounds the errors by the theorems

    F(x) − F* ≤ ‖∇F(x)‖² / (2 l2),    ‖x − x*‖ ≤ ‖∇F(x)‖ / l2,

    with nothing but rounding added.
    """
    best, loss = reference.solve(*data, masks, l2=l2, weights=weights, divisor=divisor)
    for s, mask in enumerate(masks):
        problem = (*rows_of(data, mask, weights), l2, divisor)
        if problem[2].sum() == 0:
            assert found.status[s] == Status.EMPTY
            continue
        assert found.status[s] == Status.CONVERGED
        rounding = 64 * EPS * reference.objective(np.zeros(len(best[s])), *problem)  # N ≤ 125 terms, none larger
        assert found.loss[s] == pytest.approx(reference.objective(found.x[s], *problem), rel=0, abs=rounding)
        gradient = np.linalg.norm(reference.gradient(found.x[s], *problem))
        scale = np.abs(problem[0]).sum(axis=1).max() * (1 + np.abs(problem[1]).max())
        assert found.gradient_norm[s] == pytest.approx(gradient, rel=1e-6, abs=64 * EPS * scale)
        assert -rounding <= found.loss[s] - loss[s] <= gradient**2 / (2 * l2) + rounding
        reached = 1e-12 * np.linalg.norm(reference.gradient(np.zeros(len(best[s])), *problem))  # by the reference
        assert np.linalg.norm(found.x[s] - best[s]) <= (gradient * (1 + 1e-6) + reached + 64 * EPS * scale) / l2


FIELDS = ("x", "loss", "gradient_norm", "iterations", "status")


def assert_same_bits(a, b, rows=slice(None)):
    """a's and rows of b's."""
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name)[rows], err_msg=name)
