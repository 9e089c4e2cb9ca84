"""The random ensemble: a source's score is the mean f̂ of the random subsets that hold it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from gradex_fast.constraints import FREE, Constraints
from gradex_fast.select.convergence import convergence
from gradex_fast.select.estimator import Estimator, in_tie_order, joined
from gradex_fast.select.sampling import random_subsets
from gradex_fast.select.threshold import fill, natural_count, ranking, sweep
from gradex_fast.select.validate import cross_validate, group_means
from gradex_fast.types import Estimates, Selection

Progress = Callable[[int], object] | None
Threshold = float | Literal["break", "cross-validation"]


def random_ensemble(
    estimator: Estimator,
    *,
    subsets: int = 1000,
    fraction: float | Sequence[float] = 0.75,
    keep: int | None = None,
    threshold: Threshold = "break",
    ratios: Sequence[float] = (),
    sampling: str = "independent",
    constraints: Constraints = FREE,
    seed: int = 0,
    progress: Progress = None,
) -> Selection:
    """Algorithm 3: T_i = mean f̂ over random subsets that hold i; keep the sources of T_i < γ.

    Sources of `constraints.include` are in every subset and kept; excluded ones are in none and have no score. Where
    there is a budget, the sources to keep are taken by score, and one that does not fit is passed over.

    Args:
        subsets: m, how many are drawn for each fraction. fraction: α, share of the sources in each; of several the one
            is taken whose best split predicts held-out subsets best, see `cross_validate`.
        keep: how many sources. None: the best of `ratios` by f̂ where these are given, else those under the threshold.
        threshold: γ in nats; "break" is the natural break of the scores, "cross-validation" the γ whose split predicts
            held-out subsets best. One source is kept where there would be nothing to train on.
        ratios: shares of the sources to list in ``details["sweep"]``, such as `FEW` and `MOST`.
        sampling: "independent", "balanced" or "antithetic", see `random_subsets`. The intervals of the scores take the
            subsets for independent.
        seed: of the subsets, and of the order in which equal scores are kept.
        progress: is called with the number of subsets that are done.

    Raises:
        ValueError: no choice can be within the constraints, or options do not go together.
    """
    constraints.check(estimator.candidates, keep)
    fractions = tuple(np.atleast_1d(np.asarray(fraction, float)).tolist())
    seeds = (seed, *((seed, index) for index in range(1, len(fractions))))
    drawn = [
        random_subsets(estimator, subsets, each, start, sampling, constraints)
        for each, start in zip(fractions, seeds, strict=True)
    ]
    found = _estimated(estimator, drawn, progress)
    free, judged, place = in_tie_order(constraints.free(estimator.candidates), seed), None, 0
    if not len(free):
        threshold = np.inf  # nothing is left to choose
    elif len(fractions) > 1 or threshold == "cross-validation":
        judged = cross_validate([(m, e.loss) for m, e in zip(drawn, found, strict=True)], free, seed)
        place = int(np.argmax([one.explained for one in judged]))
    scores, error = _scores(found[place].loss, drawn[place])
    ranked = ranking(free, scores)
    gamma = judged[place].threshold if judged and threshold == "cross-validation" else threshold
    swept = sweep(estimator, ranked, ratios, constraints) if len(ratios) else []
    chosen = _chosen(estimator, ranked, scores, keep, gamma, swept, constraints)
    details = {
        "fraction": fractions[place],
        "sampling": sampling,
        "threshold": _gamma(scores, ranked, chosen),
        "convergence": convergence(found[place].loss, drawn[place][:, np.sort(free)]) if len(free) else [],
        "cross_validation": _account(fractions, judged),
        "sweep": swept,
        **constraints.account(chosen),
    }
    interval = scores - 1.96 * error, scores + 1.96 * error
    return Selection(chosen, scores, *interval, (), np.concatenate(drawn), joined(found), details)


def _estimated(estimator: Estimator, drawn: Sequence[np.ndarray], progress: Progress) -> list[Estimates]:
    if progress is None:
        return [estimator.estimate(masks) for masks in drawn]
    before = np.cumsum([0, *map(len, drawn)]).tolist()
    return [
        estimator.estimate(masks, lambda done, start=start: progress(start + done))
        for masks, start in zip(drawn, before, strict=False)
    ]


def _scores(losses: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T_i [n] and its standard error over subsets; NaN for a group in no subset."""
    count, mean = masks.sum(0), group_means(losses, masks)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.square(losses[:, None] - mean) * masks
        return mean, np.sqrt(spread.sum(0) / (count - 1) / count)


def _chosen(
    estimator: Estimator,
    ranked: np.ndarray,
    scores: np.ndarray,
    keep: int | None,
    threshold: Threshold,
    swept: Sequence[dict[str, Any]],
    constraints: Constraints,
) -> tuple[int, ...]:
    if keep is not None:
        keep = min(keep, len(constraints.allowed(estimator.candidates)))
        return fill(estimator, ranked, keep, constraints, keep)
    if swept:
        return tuple(min(swept, key=lambda row: row["loss"])["sources"])
    if threshold == "break":
        count = natural_count(estimator, ranked, scores, constraints.include)
    else:
        count = int((scores[ranked] < threshold).sum())
    within = fill(estimator, ranked[:count], len(scores), constraints)
    return within if within or len(estimator.always) else fill(estimator, ranked, 1, constraints)


def _gamma(scores: np.ndarray, ranked: np.ndarray, chosen: Sequence[int]) -> float | None:
    """The γ that makes this choice: half way between the worst free source that is kept and the next. None where all
    or none are kept, or not just the best.
    """
    kept = np.isin(ranked, chosen)
    count = int(kept.sum())
    if not 0 < count < len(ranked) or not kept[:count].all() or not np.isfinite(scores[ranked[count]]):
        return None
    return float(scores[ranked[count - 1 : count + 1]].mean())


def _account(fractions: Sequence[float], judged) -> list[dict[str, float | None]]:
    if judged is None:
        return []
    rows = zip(fractions, judged, strict=True)
    return [
        {"fraction": each, "threshold": one.threshold if np.isfinite(one.threshold) else None}
        | {"explained": one.explained}
        for each, one in rows
    ]
