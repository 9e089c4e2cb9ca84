"""Subset regressions against the float64 Newton reference and SciPy, over awkward shapes, weights and tolerances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from regressions import EPS, all_and_random, assert_exact, assert_same_bits, assert_solved, make_data, rows_of
from scipy.optimize import minimize

from gradex_fast import kernels, native
from gradex_fast.kernels import Status
from gradex_fast.reference import solve as reference

GROUPS = [[1], [5], [101], [17, 1, 0, 5], [0, 101, 0, 17, 5, 1, 0]]
DIMS = [1, 5, 17, 101]


def some_weights(count):
    return np.random.default_rng(1).choice([0.0, 0.5, 3.0], count)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("sizes", GROUPS, ids=str)
def test_equals_reference(sizes, dim, weighted):
    data, masks = make_data(sizes, dim), all_and_random(len(sizes))
    weights = some_weights(sum(sizes)) if weighted else None
    assert_solved(data, masks, kernels.solve(*data, masks, l2=0.1, weights=weights), 0.1, weights)
    assert_exact(data, masks, kernels.solve(*data, masks, l2=0.1, weights=weights, tol=0), 0.1, weights)


@pytest.mark.parametrize("l2", [1e-3, 0.1, 10.0])
def test_tight_tolerance_reaches_rounding(l2):
    """tol = 0 ends at the rounding error of the gradient, as converged: x to 1e-12 / l2, F to a few eps."""
    data, masks = make_data([101, 17, 101, 55], 17), all_and_random(4) | (np.arange(4) == 2)
    found = kernels.solve(*data, masks, l2=l2, tol=0.0)
    x, loss = reference.solve(*data, masks, l2=l2)
    assert (found.status == Status.CONVERGED).all()
    np.testing.assert_allclose(found.loss, loss, rtol=16 * EPS)
    np.testing.assert_allclose(found.x, x, rtol=0, atol=1e-12 / l2)


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-9, 1e-12])
def test_tolerance_is_of_the_loss(tol):
    data, masks = make_data([101, 17, 101, 55, 40], 17), all_and_random(5, count=20) | (np.arange(5) == 2)
    found = kernels.solve(*data, masks, l2=1e-3, tol=tol)
    assert_solved(data, masks, found, 1e-3, tol=tol)


def test_closed_form_of_one_row():
    """One row g = 1, h = 0: l2 x = sigmoid(−x); l2 = sigmoid(−2) / 2 makes x = 2."""
    l2 = 1 / (1 + np.exp(2.0)) / 2
    found = kernels.solve(np.ones((1, 1)), np.zeros(1), [0, 1], [[0]], l2=l2, tol=0)
    assert found.x[0, 0] == pytest.approx(2.0, rel=1e-12)
    assert found.loss[0] == pytest.approx(np.log1p(np.exp(-2.0)) + 2 * l2, rel=1e-14)


def test_equals_scipy():
    data = make_data([40, 60, 50], 12, seed=3)
    weights = np.random.default_rng(3).random(150)
    found = kernels.solve(*data, [[0, 2]], l2=0.01, weights=weights, tol=0)
    problem = (*rows_of(data, np.array([True, False, True]), weights), 0.01)
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    scipy = minimize(reference.objective, np.zeros(12), problem, "L-BFGS-B", jac=reference.gradient, options=options)
    assert found.loss[0] == pytest.approx(scipy.fun, rel=1e-12)
    np.testing.assert_allclose(found.x[0], scipy.x, rtol=0, atol=1e-6)


def test_weights_are_repetitions():
    """Weight 0 is no row, weight 3 is three rows."""
    features, margins, pointer = make_data([9, 8], 5)
    counts = np.random.default_rng(4).choice([0, 1, 3], 17)
    repeated = np.repeat(features, counts, axis=0), np.repeat(margins, counts)
    ends = np.concatenate([[0], np.cumsum(counts)])[pointer]
    a = kernels.solve(features, margins, pointer, [[0], [1], [0, 1]], l2=0.1, weights=counts, tol=0)
    b = kernels.solve(*repeated, ends, [[0], [1], [0, 1]], l2=0.1, tol=0)
    np.testing.assert_allclose(a.x, b.x, rtol=0, atol=1e-11)
    np.testing.assert_allclose(a.loss, b.loss, rtol=64 * EPS)


def test_always_lists_and_masks_agree():
    data, masks = make_data([5, 17, 9, 1], 5), all_and_random(4)
    lists = [np.flatnonzero(mask).tolist() for mask in masks]
    assert_same_bits(kernels.solve(*data, masks, l2=0.1), kernels.solve(*data, lists, l2=0.1))
    before = masks.copy()
    found = kernels.solve(*data, masks, l2=0.1, always=[1, 3])
    np.testing.assert_array_equal(masks, before)
    masks[:, [1, 3]] = True
    assert_same_bits(found, kernels.solve(*data, masks, l2=0.1))


def test_torch_and_numpy_agree():
    features, margins, pointer = make_data([5, 17, 9], 5)
    masks, weights = all_and_random(3), np.arange(31.0)
    from_numpy = kernels.solve(features, margins, pointer, masks, l2=0.1, weights=weights)
    tensors = [torch.from_numpy(array) for array in (features, margins, pointer, masks)]
    assert_same_bits(from_numpy, kernels.solve(*tensors, l2=0.1, weights=torch.from_numpy(weights)))
    strided = np.asfortranarray(features.astype(np.float64))
    assert_same_bits(from_numpy, kernels.solve(strided, margins, pointer, masks, l2=0.1, weights=weights))


def test_outputs_need_no_initial_value():
    (features, margins, pointer), masks = make_data([5, 17, 9], 5), kernels.subset_masks([[0], [], [0, 1, 2]], 3)
    features[-1] = np.nan
    found = kernels.solve(features, margins, pointer, masks, l2=0.1, threads=1)
    outputs = [np.full_like(values, 7) for values in (found.x, found.iterations, found.status)]
    solver = native.SubsetSolver(features, margins, None, pointer, most_packed=0, divisor=0.0, threads=1)
    solver.solve(outputs, masks, l2=0.1, tol=1e-6, max_iterations=500, threads=1, progress=None)
    for values, expected in zip(outputs, (found.x, found.iterations, found.status), strict=True):
        np.testing.assert_array_equal(values, expected)


def test_reference_derivatives():
    """The reference's gradient and Hessian are the central differences of its objective and gradient."""
    problem = (*rows_of(make_data([17], 5), np.array([True]), np.arange(17.0)), 0.3)
    x, h = np.random.default_rng(6).standard_normal(5), 1e-5
    steps = h * np.eye(5)
    slope = [(reference.objective(x + s, *problem) - reference.objective(x - s, *problem)) / (2 * h) for s in steps]
    bend = [(reference.gradient(x + s, *problem) - reference.gradient(x - s, *problem)) / (2 * h) for s in steps]
    np.testing.assert_allclose(reference.gradient(x, *problem), slope, rtol=0, atol=1e-9)  # h², eps / h
    np.testing.assert_allclose(reference.hessian(x, *problem), bend, rtol=0, atol=1e-9)
