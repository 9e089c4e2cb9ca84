"""Subset regressions of random shape, scale and tolerance against SciPy."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from regressions import EPS, rows_of
from scipy.optimize import minimize

from gradex_fast import kernels, native
from gradex_fast.kernels import Status
from gradex_fast.reference import solve as reference


@st.composite
def problems(draw):
    """(data, weights, masks, l2): l2 as a multiple of the mean curvature at 0, everything else from a seed."""
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 7, 16, 33, 64, 90]), min_size=1, max_size=8))
    dim, random = draw(st.integers(1, 33)), np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, scale = sum(sizes), 10 ** draw(st.floats(-3, 3))
    features = (scale * (random.standard_normal((rows, dim)) + 0.3) / np.sqrt(dim)).astype(np.float32)
    margins = 1 + 10 ** draw(st.floats(-1, 2)) * random.standard_normal(rows)
    weights = random.choice([0.0, 0.5, 3.0], rows) if draw(st.booleans()) else None
    slope = 0.25 / np.cosh(np.clip(margins / 2, -300, 300)) ** 2
    curvature = (slope @ np.square(features.astype(float)).sum(1)) / max(rows, 1) / dim
    l2 = 10 ** draw(st.floats(-4, 2)) * max(curvature, 1e-6 * scale**2)
    masks = random.random((draw(st.integers(1, 9)), len(sizes))) < draw(st.sampled_from([0.2, 0.8]))
    return (features, margins, np.concatenate([[0], np.cumsum(sizes)])), weights, np.concatenate([masks, masks[:1]]), l2


def best_of_two(problem) -> float:
    """The lower of SciPy's minimum and the reference's."""
    dim = problem[0].shape[1]
    options = {"gtol": 1e-12, "ftol": 1e-15, "maxiter": 2000}
    found = minimize(reference.objective, np.zeros(dim), problem, "L-BFGS-B", jac=reference.gradient, options=options)
    return min(found.fun, reference.objective(reference.minimize(*problem), *problem))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(problems(), st.sampled_from([1e-3, 1e-6, 1e-9]), st.sampled_from(native.instruction_sets()), st.integers(1, 3))
def test_no_subset_is_further_from_its_minimum_than_tol_says(given_problem, tol, instruction_set, threads):
    data, weights, masks, l2 = given_problem
    with native.using_instruction_set(instruction_set):
        found = kernels.solve(*data, masks, l2=l2, weights=weights, tol=tol, threads=threads)
    np.testing.assert_array_equal(found.x[0], found.x[-1])  # duplicates
    for s, mask in enumerate(masks):
        problem = (*rows_of(data, mask, weights), l2)
        if problem[2].sum() == 0:
            assert found.status[s] == Status.EMPTY and (found.x[s] == 0).all()
            continue
        assert found.status[s] == Status.CONVERGED
        value = reference.objective(found.x[s], *problem)
        rounding = 64 * EPS * (1 + np.abs(problem[1]).max())
        assert value - best_of_two(problem) <= tol * value + rounding
