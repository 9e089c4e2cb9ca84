"""How well estimates follow truth. Relative error alone flatters: print it beside the constant predictor's."""

from __future__ import annotations

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, ties sharing their mean."""
    values = np.asarray(values, np.float64)
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place]


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation; NaN where either is constant."""
    a, b = a - np.mean(a), b - np.mean(b)
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale) if scale > 0 else float("nan")


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the ranks."""
    return pearson(ranks(a), ranks(b))


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive's score is above a negative's (ties count half)."""
    positive = np.asarray(positive, bool)
    high, low = int(positive.sum()), int((~positive).sum())
    above = ranks(scores)[positive].sum() - high * (high - 1) / 2
    return float(above / (high * low)) if high and low else float("nan")


def relative_error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Σ (f̂ - f)² / Σ f² (the paper, Table 3)."""
    return float(np.sum(np.square(estimate - truth)) / np.sum(np.square(truth)))


def constant_error(truth: np.ndarray) -> float:
    """The relative error of always predicting the mean of `truth`."""
    return relative_error(np.full_like(truth, truth.mean()), truth)


def agreement(estimate: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How estimates follow the truth of r ≥ 3 subsets: the figures that mean little without one another."""
    return {
        "spearman": spearman(estimate, truth),
        "pearson": pearson(estimate, truth),
        "relative_error": relative_error(estimate, truth),
        "calibrated_error": relative_error(leave_one_out(estimate, truth), truth),
        "constant_error": constant_error(truth),
    }


def leave_one_out(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Each f predicted by the line f ≈ a + b f̂ through the others; the mean of the others where b ≤ 0."""
    predictions = np.empty(len(truth))
    for left_out in range(len(truth)):
        others = np.arange(len(truth)) != left_out
        intercept, slope = line(estimate[others], truth[others])
        predictions[left_out] = intercept + slope * estimate[left_out]
    return predictions


def line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least-squares intercept and slope; slope 0 where it would not be positive."""
    spread = np.square(x - x.mean()).sum()
    slope = max(0.0, float((x - x.mean()) @ (y - y.mean()) / spread)) if spread > 0 else 0.0
    return float(y.mean() - slope * x.mean()), slope
