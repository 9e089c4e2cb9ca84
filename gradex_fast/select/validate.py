"""γ and α of the random ensemble by cross-validation over the sampled subsets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOLDS = 5
_GRID = 100
"""Thresholds tried at most."""


@dataclass(frozen=True)
class Validated:
    """The best threshold for the subsets of one fraction.

    Attributes:
        threshold: γ; infinite where no split of the sources tells held-out subsets apart.
        explained: share of the held-out f̂'s variance that the split predicts; 0 for no split.
    """

    threshold: float
    explained: float


def group_means(losses: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """T_i [n], the mean of losses [m] over the subsets of masks [m, n] that hold i; NaN for a group in no subset."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return losses @ masks / masks.sum(0)


def cross_validate(
    parts: Sequence[tuple[np.ndarray, np.ndarray]], free: np.ndarray, seed: int, folds: int = FOLDS
) -> list[Validated]:
    """The best γ for each α, judged on the same held-out subsets, so that both can be compared.

    Pairs of subsets, as drawn, are dealt into folds. For every fold, α and γ: T is taken from the α's subsets outside
    the fold; with r(S) the share of S's free sources whose T is not below γ, the line f̂(S) ≈ a + b r(S), b ≥ 0, is
    fitted to all α's subsets outside the fold; its squared error on all α's subsets inside, summed over folds, is what
    the best γ makes least. No split, r = 0, is the choice unless it is beaten by more than one standard error over the
    subsets. A share, because F_S is a mean over the subset's rows. The paper (arXiv 2409.19458,
    Algorithm 3 and Appendix C) tunes m, α and γ by cross-validation; this form of it is ours.

    Args:
        parts: masks bool [m, n] and f̂ [m] of each α's subsets. free: the sources that were drawn from.
        folds: fewer where there are fewer pairs.

    Raises:
        ValueError: there are fewer than four subsets.
    """
    fewest = min(len(losses) for _, losses in parts)
    if fewest < 4:
        raise ValueError(f"cross-validation needs 4 subsets or more, got {fewest}")
    folds, losses = min(folds, fewest // 2), np.concatenate([part[1] for part in parts])
    masks = np.concatenate([mask[:, free] for mask, _ in parts]).astype(float)
    fold = np.concatenate([_dealt(len(part[1]), folds, seed + index) for index, part in enumerate(parts)])
    part_of = np.repeat(np.arange(len(parts)), [len(part[1]) for part in parts])
    return [_best(masks, losses, fold, part_of == index) for index in range(len(parts))]


def _best(masks: np.ndarray, losses: np.ndarray, fold: np.ndarray, own: np.ndarray) -> Validated:
    grid = _thresholds(group_means(losses[own], masks[own]))
    error = np.zeros((len(losses), len(grid)))
    for held in range(fold.max() + 1):
        fit, judge = fold != held, fold == held
        scores = group_means(losses[fit & own], masks[fit & own])
        share = masks @ ~(scores[:, None] < grid) / masks.sum(1, keepdims=True)  # r(S) [m, γ]
        error[judge] = np.square(_lines(share[fit], losses[fit], share[judge]) - losses[judge, None])
    best = int(np.argmin(error.sum(0)))
    gain = error[:, 0] - error[:, best]  # the first is no split: the mean
    if not gain.mean() > gain.std() / np.sqrt(len(gain)):
        return Validated(np.inf, 0.0)
    return Validated(float(grid[best]), float(gain.sum() / error[:, 0].sum()))


def _thresholds(scores: np.ndarray) -> np.ndarray:
    """[γ]: infinite, then what lies half way between neighbouring scores, evenly thinned to `_GRID`."""
    ordered = np.unique(scores[np.isfinite(scores)])
    between = (ordered[:-1] + ordered[1:]) / 2
    kept = np.unique(np.linspace(0, len(between) - 1, min(_GRID, len(between))).astype(int))
    return np.concatenate([[np.inf], between[kept]])


def _lines(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """For every column of x [m, γ] the least-squares line of rising y [m], at the points at [k, γ]: [k, γ]."""
    middle = x.mean(0)
    spread = np.square(x - middle).sum(0)
    slope = np.divide((y - y.mean()) @ (x - middle), spread, out=np.zeros(len(spread)), where=spread > 1e-12)
    return y.mean() + np.maximum(slope, 0) * (at - middle)


def _dealt(count: int, folds: int, seed: int) -> np.ndarray:
    """[count]: a fold for every subset, the same for the two of a pair."""
    pairs = np.random.default_rng([seed, 2]).permutation((count + 1) // 2) % folds
    return np.repeat(pairs, 2)[:count]
