"""Which sources to keep, given their scores: a natural break, a ratio, what fits into a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradex_fast.constraints import Constraints
from gradex_fast.select.estimator import Estimator, mask_of

FEW = (0.05, 0.10, 0.15, 0.20)
"""Shares of the sources that the paper (arXiv 2409.19458) sweeps where few of many are wanted: instruction tuning."""

MOST = (0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
"""The same where most are wanted: chains of thought."""


def ranking(free: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """`free` by score [n], best first, equals in the order of `free`, those without a score last."""
    return free[np.argsort(scores[free], kind="stable")]


def natural_count(estimator: Estimator, ranked: np.ndarray, scores: np.ndarray, include: Sequence[int] = ()) -> int:
    """How many of `ranked` to keep: those below the break that splits the scores into two tight classes (Otsu 1979).

    All are kept unless dropping the upper class lowers f̂ by more than one standard error over validation rows. f̂
    itself cannot set the count: F_S is a mean over the subset's rows, so it does not see that more good rows help.
    """
    ranked = ranked[np.isfinite(scores[ranked])]
    ordered = scores[ranked]
    spread = [k * ordered[:k].var() + (len(ordered) - k) * ordered[k:].var() for k in range(1, len(ordered))]
    if not spread:
        return len(ranked)
    count = int(np.argmin(spread)) + 1
    masks = np.stack([mask_of(estimator, [*include, *part]) for part in (ranked, ranked[:count])])
    everything, kept = estimator.rows(estimator.estimate(masks).x)
    gain = everything - kept
    return count if gain.mean() > gain.std() / np.sqrt(len(gain)) else len(ranked)


def fill(
    estimator: Estimator, ranked: np.ndarray, limit: int, constraints: Constraints, keep: int | None = None
) -> tuple[int, ...]:
    """The sources of `include`, then of `ranked`, best first, each that fits into the budget, up to `limit` sources.

    Args:
        keep: pass over a source with which so many would not fit any more.
    """
    mask, candidates = mask_of(estimator, constraints.include), np.asarray(estimator.candidates)
    for source in ranked:
        if mask[candidates].sum() >= limit:
            break
        if constraints.budget is None or source in constraints.addable(mask, candidates, keep):
            mask[source] = True
    return tuple(candidates[mask[candidates]].tolist())


def sweep(
    estimator: Estimator, ranked: np.ndarray, ratios: Sequence[float], constraints: Constraints
) -> list[dict[str, object]]:
    """For each ratio the best sources that make up such a share of those allowed, one at least, and their f̂."""
    allowed = len(constraints.allowed(estimator.candidates))
    sets = [fill(estimator, ranked, max(1, round(ratio * allowed)), constraints) for ratio in ratios]
    found = estimator.estimate(np.stack([mask_of(estimator, members) for members in sets]))
    figures = zip(ratios, sets, found.loss, found.low, found.high, strict=True)
    return [
        {"ratio": ratio, "sources": list(members), "loss": float(f), "low": float(low), "high": float(high)}
        for ratio, members, f, low, high in figures
    ]
