"""f̂ against the reference solver in float64; λ and intervals against their definitions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.special
from estimators import GROUPS, MASKS, estimator, sketches

from gradex_fast import estimate
from gradex_fast.estimate import SubsetEstimator
from gradex_fast.reference import solve as reference


def by_hand(made: SubsetEstimator, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x_S [d] and the loss of every validation row [v], from the rows as they were given."""
    train, valid = sketches(len(GROUPS), 0), sketches(7, 1)
    rows = mask[GROUPS]
    g, h = train.g[rows].astype(np.float64), train.margin[rows]
    x = reference.minimize(g, h, np.ones(rows.sum()), made.l2, made.divisor)
    return x, np.log1p(np.exp(-(valid.margin + valid.g.astype(np.float64) @ x)))


def test_l2_is_ridge_times_the_mean_curvature():
    train = sketches(len(GROUPS), 0)
    h0 = np.zeros((6, 6))
    for g, h in zip(train.g.astype(np.float64), train.margin, strict=True):
        p = scipy.special.expit(h)
        h0 += p * (1 - p) * np.outer(g, g) / len(train)
    assert estimator(ridge=10.0).l2 == pytest.approx(10 * np.trace(h0) / 6, rel=1e-12)


@pytest.mark.parametrize("divisor", ["typical", "own"])
def test_every_subset_is_the_reference_solution(divisor):
    made = estimator(ridge=0.3, tol=0, divisor=divisor)
    found = made.estimate(MASKS)
    for mask, x, loss in zip(MASKS, found.x, found.loss, strict=True):
        expected, rows = by_hand(made, mask)
        np.testing.assert_allclose(x, expected, atol=2e-6 * np.linalg.norm(expected))
        assert loss == pytest.approx(rows.mean(), abs=1e-6)


def test_fewer_rows_lead_less_far():
    """Of twelve rows nine, three quarters, have the ridge itself."""
    made, plain = estimator(tol=0), estimator(tol=0, divisor="own")
    for members, times in ([0, 1, 3], 9 / 7), ([0, 1, 2, 3], 9 / 10), ([0, 1, 2, 4], 9 / 10):
        wanted = plain.at_ridge(times).estimate([members]).x
        np.testing.assert_allclose(made.estimate([members]).x, wanted, rtol=1e-5, atol=1e-8)


def test_index_lists_are_masks():
    made = estimator()
    lists = [np.flatnonzero(mask).tolist() for mask in MASKS]
    np.testing.assert_array_equal(made.estimate(lists).loss, made.estimate(MASKS).loss)


def test_always_is_in_every_subset():
    made = estimator(always=[4])
    with_it = MASKS.copy()
    with_it[:, 4] = True
    np.testing.assert_array_equal(made.estimate(MASKS).x, estimator().estimate(with_it).x)
    assert made.candidates.tolist() == [0, 1, 2, 3]


def test_nothing_to_train_on_leaves_the_model_where_it_is():
    found = estimator().estimate(np.zeros((1, 5), bool))
    assert (found.x == 0).all()
    assert found.loss[0] == pytest.approx(sketches(7, 1).loss.mean())
    assert len(estimator().estimate(np.zeros((0, 5), bool))) == 0


def test_intervals_are_the_bootstrap_over_validation_rows():
    made = estimator(bootstrap=50, seed=3, tol=0)
    draws = np.random.default_rng(3).multinomial(7, np.full(7, 1 / 7), 50)
    found = made.estimate(MASKS)
    for mask, loss, low, high in zip(MASKS, found.loss, found.low, found.high, strict=True):
        rows = by_hand(made, mask)[1]
        means = [np.repeat(rows, counts).mean() for counts in draws]
        assert (low, high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=2e-6)
        assert low < loss < high


def test_chunks_change_nothing(monkeypatch):
    whole = estimator().estimate(MASKS)
    monkeypatch.setattr(estimate, "_CHUNK", 3 * 7)
    for field in dataclasses.fields(whole):
        parts = getattr(estimator().estimate(MASKS), field.name)
        np.testing.assert_allclose(parts, getattr(whole, field.name), rtol=1e-14)


def test_the_lift_estimate_asks_for_the_true_losses():
    def losses(x: np.ndarray) -> np.ndarray:
        return x[0] ** 2 + np.arange(7)

    lifted, linear = estimator(evaluate=losses).estimate(MASKS), estimator().estimate(MASKS)
    np.testing.assert_array_equal(lifted.x, linear.x)
    np.testing.assert_allclose(lifted.loss, linear.x[:, 0] ** 2 + 3)


def test_a_group_without_rows_changes_nothing():
    made = estimator(count=7, always=[6])
    assert made.candidates.tolist() == [0, 1, 2, 3, 4, 5]
    masks = np.pad(MASKS, ((0, 0), (0, 2)), constant_values=True)
    np.testing.assert_array_equal(made.estimate(masks).x, estimator().estimate(MASKS).x)


@pytest.mark.parametrize(
    ("train", "groups", "valid", "message"),
    [
        (0, [], 3, "0 training rows"),
        (3, [0, 1, 1], 0, "0 validation rows"),
        (3, [0, 1], 3, "2 group numbers"),
    ],
)
def test_rows_that_are_missing(train, groups, valid, message):
    with pytest.raises(ValueError, match=message):
        SubsetEstimator(sketches(train, 0), np.array(groups), sketches(valid, 1))


def test_dimensions_that_differ():
    with pytest.raises(ValueError, match="dimensions differ: 6 and 5"):
        SubsetEstimator(sketches(3, 0), np.arange(3), sketches(3, 1, dim=5))
