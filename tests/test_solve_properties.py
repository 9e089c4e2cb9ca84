"""Subset regressions of random shape, weight, scale and tolerance against SciPy and the reference."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from regressions import EPS, rows_of
from scipy.optimize import minimize

from gradex_fast import kernels, native
from gradex_fast.kernels import Status
from gradex_fast.reference import solve as reference

SIZES = st.lists(st.one_of(st.sampled_from([0, 1, 16, 63, 64, 65]), st.integers(2, 90)), min_size=1, max_size=12)


def powers(low, high):
    return st.floats(low, high).map(lambda power: 10.0**power)


@st.composite
def problems(draw):
    """(data, weights, masks, l2): l2 as a multiple of the mean curvature at 0; the numbers come from a seed."""
    sizes = draw(SIZES.filter(lambda sizes: sum(sizes) <= 300))
    dim, random = draw(st.integers(1, 40)), np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, scale = sum(sizes), draw(powers(-3, 3))
    features = scale * (random.standard_normal((rows, dim)) + draw(st.sampled_from([0.0, 0.3, 3.0]))) / np.sqrt(dim)
    margins = draw(powers(-1, 2)) * random.standard_normal(rows)
    weights = random.choice([0.0, 0.5, 3.0], rows) if draw(st.booleans()) else None
    slope = 0.25 / np.cosh(margins / 2) ** 2
    curvature = (slope @ np.square(features).sum(1)) / max(rows, 1) / dim
    l2 = draw(powers(-4, 2)) * (curvature or 1.0)
    masks = random.random((draw(st.integers(1, 5)), len(sizes))) < draw(st.sampled_from([0.0, 0.2, 0.8, 1.0]))
    data = features.astype(np.float32), margins, np.concatenate([[0], np.cumsum(sizes)])
    return data, weights, np.concatenate([masks, masks[:1]]), l2


def by_scipy(problem) -> np.ndarray:
    """L-BFGS-B until its line search fails, in units of x in which the features are of the order of 1."""
    features, margins, weights, l2 = problem
    unit = np.abs(features).max() or 1.0
    scaled = features / unit, margins, weights, l2 / unit**2
    options = {"gtol": 0, "ftol": 0, "maxiter": 3000, "maxfun": 10_000}
    start = np.zeros(features.shape[1])
    return minimize(reference.objective, start, scaled, "L-BFGS-B", jac=reference.gradient, options=options).x / unit


def rounding_of(x, features, margins, weights, l2) -> float:
    """What float64 leaves of F(x): some eps of every term, and of z in it."""
    reach = np.abs(margins) + np.abs(features) @ np.abs(x)
    z = margins + features @ x
    terms = np.logaddexp(0, -z) + reference.sigmoid(-z) * reach
    return 64 * EPS * (weights @ terms / weights.sum() + l2 / 2 * x @ x)


def assert_solved(x, problem, tol) -> None:
    """What `SubsetSolver.solve` calls converged: F is within tol of its minimum, or there hardly is one."""
    value = reference.objective(x, *problem)
    best = min(reference.objective(rival, *problem) for rival in (reference.minimize(*problem), by_scipy(problem)))
    slope, at_zero = (np.linalg.norm(reference.gradient(point, *problem)) for point in (x, 0 * x))
    near = value - best <= tol * value + rounding_of(x, *problem)
    assert near or slope <= tol**2 * at_zero * (1 + 1e-6), (value, best, slope, at_zero)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problems(), powers(-9, -3), st.sampled_from(native.instruction_sets()), st.integers(1, 5))
def test_every_subset_is_solved_to_tol(given_problem, tol, instruction_set, threads):
    data, weights, masks, l2 = given_problem
    with native.using_instruction_set(instruction_set):
        found = kernels.solve(*data, masks, l2=l2, weights=weights, tol=tol, threads=threads)
    np.testing.assert_array_equal(found.x[0], found.x[-1])  # the same subset
    assert found.status[0] == found.status[-1]
    for s, mask in enumerate(masks[:-1]):
        problem = (*rows_of(data, mask, weights), l2)
        if problem[2].sum() == 0:
            assert found.status[s] == Status.EMPTY
            assert (found.x[s] == 0).all()
            continue
        assert found.status[s] == Status.CONVERGED
        assert_solved(found.x[s], problem, tol)
