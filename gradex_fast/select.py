"""Estimates to chosen sources: forward and backward selection, random ensemble. Pure NumPy.

A score is lower for a better source. The ensemble's is T_i = mean f̂ over the subsets that hold i (Algorithm 3);
forward and backward selection's is the change of f̂ that source i makes at the end of the path:
f̂(S) - f̂(S ∖ i) for a chosen one, f̂(S ∪ i) - f̂(S) for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from gradex_fast.moves import EveryMove, Moves, toggled
from gradex_fast.types import Estimates, Selection


class Estimator(Protocol):
    """What selection asks of `SubsetEstimator`, whose `moves()` is a way to search that others need not have."""

    groups: int
    always: Sequence[int]
    resampling: np.ndarray

    @property
    def candidates(self) -> np.ndarray: ...
    def estimate(self, subsets: np.ndarray) -> Estimates: ...
    def rows(self, x: np.ndarray) -> np.ndarray: ...


def forward_selection(
    estimator: Estimator, *, keep: int | None = None, progress: Callable[[int], object] | None = None
) -> Selection:
    """Algorithm 2: at every step try all candidates and add the best; stop when nothing improves f̂.

    Args:
        keep: go on to exactly so many sources, improving or not.
        progress: is called with the number of steps that were made.
    """
    return _greedy(estimator, _mask(estimator, []), keep, progress, adding=True)


def backward_selection(
    estimator: Estimator, *, keep: int | None = None, progress: Callable[[int], object] | None = None
) -> Selection:
    """From all sources, drop at every step the one without which f̂ is lowest; stop when nothing improves.

    Args:
        keep: go on to exactly so many sources, improving or not.
        progress: is called with the number of steps that were made.
    """
    return _greedy(estimator, _mask(estimator, estimator.candidates), keep, progress, adding=False)


def random_ensemble(
    estimator: Estimator,
    *,
    subsets: int = 1000,
    fraction: float = 0.75,
    keep: int | None = None,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Selection:
    """Algorithm 3: T_i = mean f̂ over random subsets that hold i; keep the sources of lowest T_i.

    Args:
        subsets: m, how many are drawn. fraction: share of the sources in each.
        keep: how many sources; None keeps those below the natural break of the scores.
        progress: is called with the number of subsets that are done.
    """
    candidates = estimator.candidates
    masks = random_subsets(estimator, subsets, fraction, seed)
    estimates = estimator.estimate(masks, progress) if progress else estimator.estimate(masks)
    scores, error = _group_means(estimates.loss, masks)
    keep = keep or _natural_count(estimator, scores)
    ranked = candidates[np.argsort(scores[candidates], kind="stable")]
    chosen = tuple(sorted(ranked[:keep].tolist()))
    return Selection(chosen, scores, scores - 1.96 * error, scores + 1.96 * error, (), masks, estimates)


def random_subsets(estimator: Estimator, count: int, fraction: float, seed: int) -> np.ndarray:
    """bool [count, n]: each holds round(fraction · candidates) candidates, and every `always` group."""
    candidates, draw = estimator.candidates, np.random.default_rng(seed)
    size = min(max(1, round(fraction * len(candidates))), len(candidates))
    return np.stack([_mask(estimator, draw.choice(candidates, size, replace=False)) for _ in range(count)])


def _mask(estimator: Estimator, members: Sequence[int] | np.ndarray) -> np.ndarray:
    mask = np.zeros(estimator.groups, bool)
    mask[[*members, *estimator.always]] = True
    return mask


def _group_means(losses: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T_i [n] and its standard error over subsets; NaN for a group in no subset."""
    count = masks.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = losses @ masks / count
        spread = np.square(losses[:, None] - mean) * masks
        return mean, np.sqrt(spread.sum(0) / (count - 1) / count)


def _natural_count(estimator: Estimator, scores: np.ndarray) -> int:
    """How many of the sources to keep: those below the break that splits the scores into two tight classes (Otsu 1979).

    All are kept unless dropping the upper class lowers f̂ by more than one standard error over validation rows. f̂
    itself cannot set the count: F_S is a mean over the subset's rows, so it does not see that more good rows help.
    """
    scored = estimator.candidates[np.isfinite(scores[estimator.candidates])]
    ranked = scored[np.argsort(scores[scored], kind="stable")]
    ordered = scores[ranked]
    spread = [k * ordered[:k].var() + (len(ordered) - k) * ordered[k:].var() for k in range(1, len(ordered))]
    if not spread:
        return len(ranked)
    count = int(np.argmin(spread)) + 1
    masks = np.stack([_mask(estimator, ranked), _mask(estimator, ranked[:count])])
    everything, kept = estimator.rows(estimator.estimate(masks).x)
    gain = everything - kept
    return count if gain.mean() > gain.std() / np.sqrt(len(gain)) else len(ranked)


def _greedy(
    estimator: Estimator,
    mask: np.ndarray,
    keep: int | None,
    progress: Callable[[int], object] | None,
    *,
    adding: bool,
) -> Selection:
    candidates, path = estimator.candidates, []
    search = estimator.moves() if hasattr(estimator, "moves") else EveryMove(estimator)
    tried, found = [mask[None]], [estimator.estimate(mask[None])]
    best = float(found[0].loss[0]) if mask.any() else np.inf  # nothing to train on is no alternative
    while True:
        size = int(mask[candidates].sum())
        moves = candidates[mask[candidates] != adding]
        enough = keep is not None and (size >= keep if adding else size <= keep)
        if len(moves) == 0 or enough or (not adding and size == _fewest(estimator)):
            break
        step = search.best(mask, moves, best)
        tried.append(step.subsets)
        found.append(step.estimates)
        if keep is None and not step.gain > 0:
            break
        mask, best = toggled(mask, moves[[step.move]])[0], step.loss
        path.append({"source": int(moves[step.move]), "loss": best})
        if progress:
            progress(len(path))
    scores, low, high = _marginal_effects(estimator, search, mask)
    chosen = tuple(candidates[mask[candidates]].tolist())
    return Selection(chosen, scores, low, high, tuple(path), np.concatenate(tried), _joined(found))


def _fewest(estimator: Estimator) -> int:
    """Nothing to train on is no alternative: without an `always` group one source is kept."""
    return 0 if len(estimator.always) else 1


def _marginal_effects(
    estimator: Estimator, search: Moves, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What each source changes in f̂ at `mask`, with a bootstrap interval over the same validation rows."""
    candidates = estimator.candidates
    rows = estimator.rows(search.solve(mask, candidates))
    sign = np.where(mask[candidates], -1.0, 1.0)[:, None]
    change = sign * (rows[1:] - rows[0])
    scores = np.full((3, estimator.groups), np.nan)
    scores[0, candidates] = change.mean(1)
    scores[1:, candidates] = np.quantile(change @ estimator.resampling.T, (0.025, 0.975), axis=1)
    return scores[0], scores[1], scores[2]


def _joined(parts: Sequence[Estimates]) -> Estimates:
    return Estimates(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("loss", "low", "high", "x"))
    )
