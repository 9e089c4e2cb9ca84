"""The linear datamodel: what it recovers, and its choice of penalty against refitting without each subset."""

from __future__ import annotations

import numpy as np
import pytest
import runs

from gradex_fast.baselines.datamodel import PENALTIES, datamodel, fits, fitted
from gradex_fast.errors import GradexError
from gradex_fast.select import random_subsets


def ridge(masks: np.ndarray, losses: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """θ and c of least Σ (f - c - θ·1_S)² + penalty |θ|², from the normal equations of both."""
    m, n = masks.shape
    x = np.hstack([masks.astype(float), np.ones((m, 1))])
    found = np.linalg.solve(x.T @ x + penalty * np.diag([*np.ones(n), 0]), x.T @ losses)
    return found[:n], found[n]


def by_leaving_out(masks: np.ndarray, losses: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Every penalty's error by m fits without one subset each, and θ."""
    largest = np.linalg.eigvalsh(np.cov(masks.T.astype(float), bias=True) * len(masks))[-1]
    found = []
    for penalty in PENALTIES * largest:
        errors = []
        for j in range(len(masks)):
            others = np.arange(len(masks)) != j
            theta, constant = ridge(masks[others], losses[others], penalty)
            errors.append((losses[j] - constant - masks[j] @ theta) ** 2)
        found.append((np.mean(errors), ridge(masks, losses, penalty)[0]))
    return found


def drawn(seed: int, m: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).random((m, n)) < 0.5


@pytest.mark.parametrize("noise", [0.1, 1.0, 10.0])
def test_the_penalty_is_the_one_of_least_leave_one_out_error(noise):
    masks, draw = drawn(0, 18, 6), np.random.default_rng(1)
    losses = 3 + masks @ draw.normal(size=6) + noise * draw.normal(size=18)
    for (error, effects), (expected, theta) in zip(fits(masks, losses), by_leaving_out(masks, losses), strict=True):
        assert error == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(effects, theta, rtol=1e-6, atol=1e-9)
    least = min(by_leaving_out(masks, losses), key=lambda pair: pair[0])[1]
    np.testing.assert_allclose(fitted(masks, losses), least, rtol=1e-6, atol=1e-9)


def test_effects_of_a_linear_loss_are_found():
    masks, effects = drawn(2, 200, 8), np.linspace(-1, 1, 8)
    np.testing.assert_allclose(fitted(masks, 5 + masks @ effects), effects, atol=1e-4)


def test_subsets_of_one_size_give_effects_that_sum_to_zero():
    draw, effects = np.random.default_rng(3), np.linspace(1, 2, 6)
    masks = np.array([np.isin(np.arange(6), draw.choice(6, 4, replace=False)) for _ in range(60)])
    np.testing.assert_allclose(fitted(masks, masks @ effects), effects - 1.5, atol=1e-4)


@pytest.mark.parametrize("m", [3, 5])
def test_fewer_subsets_than_sources_are_shrunk_not_refused(m):
    masks = drawn(4, m, 9)
    found = fitted(masks, masks @ np.ones(9))
    assert np.isfinite(found).all()
    assert np.isfinite(fitted(np.ones((m, 9), bool), np.arange(m))).all()  # nothing varies


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    return runs.run(runs.language_tree(inputs, tmp_path_factory.mktemp("datamodel") / "run"), until="estimate")


def test_it_is_fitted_to_the_ensembles_subsets(run):
    masks = random_subsets(run.estimator, 20, 0.75, 0)
    expected = fitted(masks[:, :4], run.estimator.estimate(masks).loss)
    np.testing.assert_allclose(datamodel(run).score, expected, rtol=1e-4, atol=1e-7)


def test_it_takes_true_losses_in_place_of_estimates(run):
    masks = drawn(5, 40, 5)
    found = datamodel(run, masks=masks, losses=masks[:, :4] @ [1.0, -2.0, 0.5, -0.1])
    np.testing.assert_allclose(found.score, [1, -2, 0.5, -0.1], atol=1e-3)
    assert found.natural == 2


def test_too_little_is_refused(run):
    for masks, losses in ((drawn(0, 2, 4), np.zeros(2)), (drawn(0, 4, 4), np.zeros(3)), (drawn(0, 4, 4), None)):
        with pytest.raises(GradexError, match="three subsets or more with a loss each, got"):
            datamodel(run, masks=masks, losses=losses)
