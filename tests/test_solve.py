"""Subset regressions against the float64 Newton reference, over awkward shapes, weights, margins and data.

Where l2 > 0, F is l2-strongly convex, so a solution's gradient bounds its error by two theorems,

    F(x) − F* ≤ ‖∇F(x)‖² / (2 l2)        ‖x − x*‖ ≤ ‖∇F(x)‖ / l2,

which serve as the tolerances here: they hold at any tol, with nothing but rounding added.
"""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from gradex_fast import kernels, native
from gradex_fast.kernels import Status
from gradex_fast.reference import solve as reference

EPS = np.finfo(np.float64).eps
GROUPS = [[1], [5], [101], [17, 1, 0, 5], [0, 101, 0, 17, 5, 1, 0]]
DIMS = [1, 5, 17, 101]


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


def assert_near_optimum(data, masks, found, l2, weights=None):
    """What the solver reports is true, and the theorems above hold against the reference."""
    x, loss = reference.solve(*data, masks, l2=l2, weights=weights)
    for s, mask in enumerate(masks):
        problem = (*rows_of(data, mask, weights), l2)
        if problem[2].sum() == 0:
            assert found.status[s] == Status.EMPTY
            continue
        assert found.status[s] == Status.CONVERGED
        rounding = 64 * EPS * reference.objective(np.zeros(len(x[s])), *problem)  # N ≤ 125 terms, none larger
        assert found.loss[s] == pytest.approx(reference.objective(found.x[s], *problem), rel=0, abs=rounding)
        gradient = np.linalg.norm(reference.gradient(found.x[s], *problem))
        scale = np.abs(problem[0]).sum(axis=1).max() * (1 + np.abs(problem[1]).max())
        assert found.gradient_norm[s] == pytest.approx(gradient, rel=1e-6, abs=64 * EPS * scale)
        assert -rounding <= found.loss[s] - loss[s] <= gradient**2 / (2 * l2) + rounding
        assert np.linalg.norm(found.x[s] - x[s]) <= gradient / l2 * (1 + 1e-6) + 64 * EPS * scale / l2


def assert_same_bits(a, b):
    for left, right in zip(astuple(a), astuple(b), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("sizes", GROUPS, ids=str)
def test_equals_reference(sizes, dim, weighted):
    data, masks = make_data(sizes, dim), all_and_random(len(sizes))
    weights = np.random.default_rng(1).choice([0.0, 0.5, 3.0], sum(sizes)) if weighted else None
    found = kernels.solve(*data, masks, l2=0.1, weights=weights)
    assert_near_optimum(data, masks, found, 0.1, weights)


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.parametrize(("l2", "bound"), [(1e-3, 5e-11), (0.1, 2e-13), (10.0, 1e-14)])
def test_relative_suboptimality(l2, bound, instruction_set):
    """What the gradient test at tol = 1e-6 buys in F; about ten times what is reached: 6e-12, 3e-14 and 7e-16."""
    data, masks = make_data([101, 17, 101, 0, 55], 17), all_and_random(5) | (np.arange(5) == 2)
    with native.using_instruction_set(instruction_set):
        found = kernels.solve(*data, masks, l2=l2)
    _, best = reference.solve(*data, masks, l2=l2)
    assert (found.status == Status.CONVERGED).all()
    assert ((found.loss - best) / best).max() <= bound
    start = [np.linalg.norm(reference.gradient(np.zeros(17), *rows_of(data, mask), l2)) for mask in masks]
    assert (found.gradient_norm <= 1e-6 * np.array(start)).all()


def test_tight_tolerance_reaches_rounding():
    """tol = 0 ends at the rounding error of the gradient, as converged: x to 1e-11, F to a few eps."""
    data, masks = make_data([101, 17, 101, 55], 17), all_and_random(4) | (np.arange(4) == 2)
    found = kernels.solve(*data, masks, l2=0.1, tol=0.0)
    x, loss = reference.solve(*data, masks, l2=0.1)
    assert (found.status == Status.CONVERGED).all()
    np.testing.assert_allclose(found.loss, loss, rtol=16 * EPS)
    np.testing.assert_allclose(found.x, x, rtol=0, atol=1e-11)


def test_closed_form_of_one_row():
    """One row g = 1, h = 0: l2 x = sigmoid(−x); l2 = sigmoid(−2) / 2 makes x = 2."""
    l2 = 1 / (1 + np.exp(2.0)) / 2
    found = kernels.solve(np.ones((1, 1)), np.zeros(1), [0, 1], [[0]], l2=l2, tol=1e-14)
    assert found.x[0, 0] == pytest.approx(2.0, rel=1e-12)
    assert found.loss[0] == pytest.approx(np.log1p(np.exp(-2.0)) + 2 * l2, rel=1e-14)


def test_equals_scipy():
    data = make_data([40, 60, 50], 12, seed=3)
    weights = np.random.default_rng(3).random(150)
    found = kernels.solve(*data, [[0, 2]], l2=0.01, weights=weights, tol=1e-9)
    problem = (*rows_of(data, np.array([True, False, True]), weights), 0.01)
    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000}
    scipy = minimize(reference.objective, np.zeros(12), problem, "L-BFGS-B", jac=reference.gradient, options=options)
    assert found.loss[0] == pytest.approx(scipy.fun, rel=1e-12)
    np.testing.assert_allclose(found.x[0], scipy.x, rtol=0, atol=1e-6)


def test_as_few_iterations_as_scipy():
    """Columns of sizes 1 to 1/100: 67 iterations, SciPy 63; with a history of 4 it would be 80."""
    features, margins, pointer = make_data([400], 30)
    data, tol = (features * np.geomspace(1, 0.01, 30), margins, pointer), 1e-6
    found = kernels.solve(*data, [[0]], l2=1e-5, tol=tol)
    problem, norms = (*rows_of(data, np.array([True])), 1e-5), []

    def record(x):
        norms.append(np.linalg.norm(reference.gradient(x, *problem)))

    record(np.zeros(30))
    options = {"ftol": 0.0, "gtol": 1e-12, "maxiter": 500}
    minimize(
        reference.objective, np.zeros(30), problem, "L-BFGS-B", jac=reference.gradient, callback=record, options=options
    )
    scipy = np.argmax(np.array(norms) <= tol * norms[0])
    assert found.status[0] == Status.CONVERGED
    assert scipy > 0
    assert found.iterations[0] <= 1.2 * scipy


@pytest.mark.parametrize("l2", [0.1, 1e-6])
@pytest.mark.parametrize("signs", [[1], [-1], [1, -1]], ids=str)
def test_huge_margins(signs, l2):
    """h = ±1e4: a sigmoid underflows to 0 or is 1, F is of the order of 1e4, and x must go as far."""
    features, _, pointer = make_data([17, 101, 5], 5)
    margins = np.random.default_rng(2).choice(signs, 123) * 1e4
    data, masks = (features, margins, pointer), all_and_random(3)
    assert_near_optimum(data, masks, kernels.solve(*data, masks, l2=l2), l2)


def test_tiny_gradients():
    """h = 100: F is 1e-43, and the rounding of z = h + g·x costs it 100 times its own; many subsets of 40 rows."""
    rng = np.random.default_rng(7)
    data = rng.standard_normal((100, 2)).astype(np.float32), 100 + rng.standard_normal(100), np.arange(101)
    masks = rng.permuted(np.tile(np.arange(100) < 40, (1000, 1)), axis=1)
    found = kernels.solve(*data, masks, l2=0.0, tol=1e-10)
    start = [np.linalg.norm(reference.gradient(np.zeros(2), *rows_of(data, mask), 0.0)) for mask in masks]
    assert (found.status == Status.CONVERGED).all()
    assert (found.gradient_norm <= 1e-10 * np.array(start)).all()
    assert (found.iterations > 0).all()


def test_weights_are_repetitions():
    """Weight 0 is no row, weight 3 is three rows."""
    features, margins, pointer = make_data([9, 8], 5)
    counts = np.random.default_rng(4).choice([0, 1, 3], 17)
    repeated = np.repeat(features, counts, axis=0), np.repeat(margins, counts)
    ends = np.concatenate([[0], np.cumsum(counts)])[pointer]
    a = kernels.solve(features, margins, pointer, [[0], [1], [0, 1]], l2=0.1, weights=counts, tol=1e-12)
    b = kernels.solve(*repeated, ends, [[0], [1], [0, 1]], l2=0.1, tol=1e-12)
    np.testing.assert_allclose(a.x, b.x, rtol=0, atol=1e-11)
    np.testing.assert_allclose(a.loss, b.loss, rtol=64 * EPS)


def test_empty_subsets():
    """No group, only groups without rows, or only rows without weight."""
    data, weights = make_data([4, 0, 3], 5), np.array([1.0] * 4 + [0.0] * 3)
    found = kernels.solve(*data, [[], [1], [2], [1, 2], [0]], l2=0.1, weights=weights)
    assert found.status.tolist() == [Status.EMPTY] * 4 + [Status.CONVERGED]
    for values in (found.x, found.loss, found.gradient_norm, found.iterations):
        assert (values[:4] == 0).all()
    assert found.loss[4] > 0


def test_same_bits_for_any_threads_and_for_duplicates():
    data, masks = make_data([17, 5, 0, 101, 1, 33], 17), all_and_random(6, count=40)
    masks = np.concatenate([masks, masks[::-1]])
    one = kernels.solve(*data, masks, l2=0.01, threads=1)
    for threads in (2, 3, 7):
        assert_same_bits(one, kernels.solve(*data, masks, l2=0.01, threads=threads))
    np.testing.assert_array_equal(one.x, one.x[::-1])
    np.testing.assert_array_equal(one.loss, one.loss[::-1])


@pytest.mark.parametrize("l2", [0.0, 1e-300, 1e-12])
def test_separable_rows(l2):
    """Without a ridge there is no minimum: x grows until the gradient has shrunk a millionfold."""
    features, margins, pointer = make_data([17, 101], 5)
    found = kernels.solve(np.abs(features), margins, pointer, [[0], [0, 1]], l2=l2)
    assert (found.status == Status.CONVERGED).all()
    assert np.isfinite(found.x).all()
    assert ((found.loss > 0) & (found.loss < 1e-5)).all()


def test_stalls_where_double_precision_ends():
    """Rows ±(1e6 + noise) cancel to six digits less than the test assumes; it must end, and near the minimum."""
    rng = np.random.default_rng(5)
    features = rng.choice([-1, 1], (300, 1)) * (1e6 + rng.standard_normal((300, 5)))
    found = kernels.solve(features, np.zeros(300), [0, 300], [[0]], l2=0.0, tol=0.0)
    assert found.status[0] == Status.STALLED
    assert found.loss[0] < np.log(2)
    assert found.gradient_norm[0] < 1.0


def test_iteration_limit():
    data = make_data([101], 17)
    found = kernels.solve(*data, [[0]], l2=1e-3, max_iterations=3)
    assert found.status[0] == Status.ITERATION_LIMIT
    assert found.iterations[0] == 3
    assert found.loss[0] < reference.objective(np.zeros(17), *rows_of(data, np.array([True])), 1e-3)


def test_constant_zero_and_repeated_columns():
    features, margins, pointer = make_data([17, 101], 5)
    features[:, 0] = 1.0
    features[:, 1] = 0.0
    features[:, 2] = features[:, 3]
    data, masks = (features, margins, pointer), np.array([[True, False], [True, True]])
    found = kernels.solve(*data, masks, l2=0.1)
    assert_near_optimum(data, masks, found, 0.1)
    assert (found.x[:, 1] == 0).all()
    np.testing.assert_array_equal(found.x[:, 2], found.x[:, 3])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["features", "margins", "weights"])
def test_bad_row_spoils_only_its_subsets(place, bad):
    features, margins, pointer = make_data([5, 17, 9], 5)
    arrays = {"features": features, "margins": margins, "weights": np.ones(31)}
    subsets = [[0], [1], [0, 1], [0, 2], [2, 1]]
    clean = kernels.solve(group_ptr=pointer, subsets=subsets, l2=0.1, **arrays)
    arrays[place][20] = bad  # in group 1
    found = kernels.solve(group_ptr=pointer, subsets=subsets, l2=0.1, **arrays)
    spoilt = [1, 2, 4]
    assert (found.status[spoilt] == Status.NOT_FINITE).all()
    assert (found.x[spoilt] == 0).all()
    assert np.isnan(found.loss[spoilt]).all()
    for left, right in zip(astuple(found), astuple(clean), strict=True):
        np.testing.assert_array_equal(left[[0, 3]], right[[0, 3]])


def test_outputs_need_no_initial_value():
    (features, margins, pointer), subsets = make_data([5, 17, 9], 5), [[0], [], [0, 1, 2]]
    features[-1] = np.nan
    found = kernels.solve(features, margins, pointer, subsets, l2=0.1, threads=1)
    outputs = [np.full_like(values, 7) for values in astuple(found)]
    masks = kernels.subset_masks(subsets, 3)
    limits = {"l2": 0.1, "tol": 1e-6, "max_iterations": 500, "threads": 1}
    native.solve(outputs, features, margins, None, pointer, masks, **limits)
    assert_same_bits(found, kernels.Solutions(*outputs))


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


def test_reference_derivatives():
    """The reference's gradient and Hessian are the central differences of its objective and gradient."""
    problem = (*rows_of(make_data([17], 5), np.array([True]), np.arange(17.0)), 0.3)
    x, h = np.random.default_rng(6).standard_normal(5), 1e-5
    steps = h * np.eye(5)
    slope = [(reference.objective(x + s, *problem) - reference.objective(x - s, *problem)) / (2 * h) for s in steps]
    bend = [(reference.gradient(x + s, *problem) - reference.gradient(x - s, *problem)) / (2 * h) for s in steps]
    np.testing.assert_allclose(reference.gradient(x, *problem), slope, rtol=0, atol=1e-9)  # h², eps / h
    np.testing.assert_allclose(reference.hessian(x, *problem), bend, rtol=0, atol=1e-9)
