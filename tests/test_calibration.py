"""Calibration by really fine-tuned subsets, the choice of the ridge, and how the ranks hold at others."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from estimators import MASKS, estimator

from gradex_fast import metrics


def test_calibration_finds_an_exact_line():
    made = estimator()
    raw = made.estimate(MASKS)
    fitted = made.calibrated(MASKS[:6], 0.2 + 1.5 * raw.loss[:6])
    found, fit = fitted.estimate(MASKS), fitted.calibration
    assert (fit.intercept, fit.slope, fit.contradicted) == (pytest.approx(0.2), pytest.approx(1.5), False)
    assert fit.error == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.loss, 0.2 + 1.5 * raw.loss)
    np.testing.assert_allclose(found.high - found.loss, 1.5 * (raw.high - raw.loss))
    assert made.calibration is None


def test_calibrated_intervals_hold_the_left_out_error():
    made = estimator()
    raw, noise = made.estimate(MASKS), np.random.default_rng(5).normal(scale=0.02, size=len(MASKS))
    truth = raw.loss + noise
    fitted = made.calibrated(MASKS, truth)
    error = np.sqrt(np.mean((metrics.leave_one_out(raw.loss, truth) - truth) ** 2))
    assert fitted.calibration.error == pytest.approx(error)
    found, slope = fitted.estimate(MASKS), fitted.calibration.slope
    np.testing.assert_allclose((found.loss - found.low) ** 2, (slope * (raw.loss - raw.low)) ** 2 + (1.96 * error) ** 2)


def test_anchors_that_contradict_move_the_level_alone():
    made = estimator()
    raw = made.estimate(MASKS[:6]).loss
    fitted = made.calibrated(MASKS[:6], 2 - raw)
    assert (fitted.calibration.contradicted, fitted.calibration.slope) == (True, 1.0)
    assert fitted.estimate(MASKS[:6]).loss == pytest.approx(raw + np.mean(2 - 2 * raw))
    offsets = 2 - 2 * raw
    left_out = [offsets[i] - np.delete(offsets, i).mean() for i in range(6)]
    assert fitted.calibration.error == pytest.approx(np.sqrt(np.mean(np.square(left_out))))


def test_one_anchor_calibrates_nothing():
    with pytest.raises(ValueError, match="two subsets or more, got 1"):
        estimator().calibrated(MASKS[:1], np.ones(1))


def test_the_ridge_of_least_left_out_error_is_taken():
    made, ridges = estimator(), [0.01, 0.1, 3.0, 100.0]
    truth = 0.1 + 2 * made.at_ridge(3.0).estimate(MASKS[::3]).loss
    assert made.calibrated(MASKS[::3], truth, ridges).ridge == 3.0
    assert made.calibrated(MASKS[::3], truth, ridges[:2]).ridge in ridges[:2]
    assert made.calibrated(MASKS[::3], truth).ridge == 1.0


def test_rank_stability_is_spearman_at_other_ridges():
    made = estimator()
    here, up, down = (made.at_ridge(ridge).estimate(MASKS).loss for ridge in (1, 10, 0.1))
    found = estimator().calibrated(MASKS[:4], here[:4] ** 2).rank_stability(MASKS)
    assert found["ridge x 10"] == pytest.approx(scipy.stats.spearmanr(here, up).statistic)
    assert found["ridge / 10"] == pytest.approx(scipy.stats.spearmanr(here, down).statistic)
    assert all(-1 <= value < 1 for value in found.values())
