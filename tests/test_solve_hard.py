"""Subset regressions that end badly or barely: right answers or a status, never an exception or NaN."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from regressions import FIELDS, all_and_random, assert_solved, make_data, rows_of

from gradex_fast import kernels
from gradex_fast.kernels import Status
from gradex_fast.reference import solve as reference


@pytest.mark.parametrize("l2", [0.1, 1e-6])
@pytest.mark.parametrize("signs", [[1], [-1], [1, -1]], ids=str)
def test_huge_margins(signs, l2):
    """h = ±1e4: a sigmoid underflows to 0 or is 1, F is of the order of 1e4, and x must go as far."""
    features, _, pointer = make_data([17, 101, 5], 5)
    margins = np.random.default_rng(2).choice(signs, 123) * 1e4
    data, masks = (features, margins, pointer), all_and_random(3)
    assert_solved(data, masks, kernels.solve(*data, masks, l2=l2), l2)


def test_tiny_gradients():
    """h = 100: F is 1e-43, and the rounding of z = h + g·x costs it 100 times its own; many subsets of 40 rows."""
    rng = np.random.default_rng(7)
    data = rng.standard_normal((100, 2)).astype(np.float32), 100 + rng.standard_normal(100), np.arange(101)
    masks = rng.permuted(np.tile(np.arange(100) < 40, (1000, 1)), axis=1)
    found = kernels.solve(*data, masks, l2=0.0, tol=1e-10)
    start = [np.linalg.norm(reference.gradient(np.zeros(2), *rows_of(data, mask), 0.0)) for mask in masks]
    assert (found.status == Status.CONVERGED).all()
    assert (found.gradient_norm <= 1e-3 * np.array(start)).all()
    assert (found.iterations > 0).all()


def test_empty_subsets():
    """No group, only groups without rows, or only rows without weight."""
    data, weights = make_data([4, 0, 3], 5), np.array([1.0] * 4 + [0.0] * 3)
    found = kernels.solve(*data, [[], [1], [2], [1, 2], [0]], l2=0.1, weights=weights)
    assert found.status.tolist() == [Status.EMPTY] * 4 + [Status.CONVERGED]
    for values in (found.x, found.loss, found.gradient_norm, found.iterations):
        assert (values[:4] == 0).all()
    assert found.loss[4] > 0


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)], ids=str)
def test_nothing_at_all(shape):
    """No rows, no columns: F is 0 and mean softplus(−h)."""
    rows, dim = shape
    found = kernels.solve(np.zeros(shape), np.ones(rows), [0, rows], [[0], []], l2=0.1)
    assert found.x.shape == (2, dim)
    assert found.status.tolist() == [Status.CONVERGED if rows else Status.EMPTY, Status.EMPTY]
    assert found.loss[0] == pytest.approx(np.log1p(np.exp(-1.0)) if rows else 0.0)


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


@pytest.mark.parametrize("limit", [0, 1])
def test_iteration_limit(limit):
    data, masks = make_data([101, 40, 33], 17), all_and_random(3, count=6) | (np.arange(3) == 0)
    found = kernels.solve(*data, masks, l2=1e-3, max_iterations=limit, tol=1e-12)
    assert (found.status == Status.ITERATION_LIMIT).all()
    assert (found.iterations == limit).all()
    zero = [reference.objective(np.zeros(17), *rows_of(data, mask), 1e-3) for mask in masks]
    assert (found.loss < zero).all()


def test_constant_zero_and_repeated_columns():
    features, margins, pointer = make_data([17, 101], 5)
    features[:, 0] = 1.0
    features[:, 1] = 0.0
    features[:, 2] = features[:, 3]
    data, masks = (features, margins, pointer), np.array([[True, False], [True, True]])
    found = kernels.solve(*data, masks, l2=0.1)
    assert_solved(data, masks, found, 0.1)
    assert (found.x[:, 1] == 0).all()
    np.testing.assert_allclose(found.x[:, 2], found.x[:, 3], rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-18, 1e-6, 1e6, 1e18])
def test_scale_of_the_features(scale):
    """x · scale and l2 / scale² make the same problem."""
    data, masks = make_data([17, 101], 5), np.array([[True, False], [True, True]])
    scaled = (data[0] * np.float32(scale), *data[1:])
    found, plain = kernels.solve(*scaled, masks, l2=0.01 * scale**2), kernels.solve(*data, masks, l2=0.01)
    assert (found.status == Status.CONVERGED).all()
    np.testing.assert_allclose(found.loss, plain.loss, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", ["features", "margins", "weights"])
def test_bad_row_spoils_only_its_subsets(place, bad):
    features, margins, pointer = make_data([5, 17, 9], 5)
    arrays = {"features": features, "margins": margins, "weights": np.ones(31)}
    masks = kernels.subset_masks([[0], [1], [0, 1], [0, 2], [2, 1]], 3)
    clean = (features.copy(), margins.copy(), pointer)
    arrays[place][20] = bad  # in group 1
    found = kernels.solve(group_ptr=pointer, subsets=masks, l2=0.1, **arrays)
    spoilt, whole = [1, 2, 4], [0, 3]
    assert (found.status[spoilt] == Status.NOT_FINITE).all()
    assert (found.x[spoilt] == 0).all()
    assert np.isnan(found.loss[spoilt]).all()
    rest = SimpleNamespace(**{name: getattr(found, name)[whole] for name in FIELDS})
    assert_solved(clean, masks[whole], rest, 0.1)
