"""Each figure against scipy or against its definition, written out."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import scipy.stats

from gradex_fast import metrics


@pytest.fixture(params=[(2, 100), (3, 2), (10, 3), (57, 1000)], ids=str)
def tied(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """Two samples; the fewer the possible values, the more ties."""
    size, values = request.param
    draw = np.random.default_rng(size)
    while True:
        a, b = draw.integers(values, size=(2, size)).astype(float)
        if np.ptp(a) and np.ptp(b):
            return a, b


def test_ranks_share_ties(tied):
    for values in tied:
        np.testing.assert_array_equal(metrics.ranks(values), scipy.stats.rankdata(values) - 1)


def test_correlations_are_scipys(tied):
    assert metrics.pearson(*tied) == pytest.approx(scipy.stats.pearsonr(*tied).statistic, abs=1e-13)
    assert metrics.spearman(*tied) == pytest.approx(scipy.stats.spearmanr(*tied).statistic, abs=1e-13)


def test_spearman_sees_only_the_order():
    a = np.random.default_rng(0).normal(size=30)
    assert metrics.spearman(a, np.exp(3 * a)) == pytest.approx(1)
    assert metrics.spearman(a, -(a**3)) == pytest.approx(-1)
    assert metrics.pearson(a, np.exp(3 * a)) < 0.9


@pytest.mark.parametrize("correlation", [metrics.pearson, metrics.spearman])
def test_a_constant_has_no_correlation(correlation):
    assert math.isnan(correlation(np.ones(4), np.arange(4.0)))
    assert math.isnan(correlation(np.arange(4.0), np.ones(4)))


@pytest.mark.parametrize("seed", range(5))
def test_auc_counts_pairs(seed):
    draw = np.random.default_rng(seed)
    scores, positive = draw.integers(6, size=25).astype(float), draw.random(25) < 0.4
    pairs = list(product(scores[positive], scores[~positive]))
    assert metrics.auc(scores, positive) == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))


def test_auc_of_perfect_reversed_and_blind_scores():
    positive = np.array([0, 0, 1, 1])
    assert metrics.auc(np.array([1, 2, 3, 4]), positive) == 1
    assert metrics.auc(np.array([4, 3, 2, 1]), positive) == 0
    assert metrics.auc(np.ones(4), positive) == 0.5


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_auc_needs_both_kinds(positive):
    assert math.isnan(metrics.auc(np.array([1.0, 2.0]), np.array(positive)))


def test_relative_errors():
    truth, estimate = np.array([1.0, 2.0, 3.0]), np.array([1.5, 2.0, 2.0])
    assert metrics.relative_error(estimate, truth) == pytest.approx((0.25 + 0 + 1) / (1 + 4 + 9))
    assert metrics.constant_error(truth) == pytest.approx((1 + 0 + 1) / 14)
    assert metrics.relative_error(truth, truth) == 0


def test_the_line_is_least_squares():
    x, y = np.random.default_rng(1).normal(size=(2, 12))
    y = y + 2 * x
    fit = scipy.stats.linregress(x, y)
    assert metrics.line(x, y) == pytest.approx((fit.intercept, fit.slope))


def test_a_line_that_falls_is_flat():
    x = np.arange(5.0)
    assert metrics.line(x, 7 - 2 * x) == (3.0, 0.0)
    assert metrics.line(np.ones(5), x) == (2.0, 0.0)


def test_leave_one_out_fits_a_line_without_each_point():
    x, noise = np.random.default_rng(2).normal(size=(2, 9))
    y = 3 + 0.5 * x + noise
    expected = []
    for left_out in range(9):
        slope, intercept = np.polyfit(np.delete(x, left_out), np.delete(y, left_out), 1)
        rest = np.delete(y, left_out).mean()
        expected.append(intercept + slope * x[left_out] if slope > 0 else rest)
    np.testing.assert_allclose(metrics.leave_one_out(x, y), expected)


def test_leave_one_out_where_the_estimate_misleads_is_the_mean_of_the_others():
    x, y = np.arange(6.0), -np.arange(6.0)
    np.testing.assert_allclose(metrics.leave_one_out(x, y), (y.sum() - y) / 5)
