"""From a figure for every source to a choice: what the rivals that score sources have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradex_fast.baselines.outcome import Outcome
from gradex_fast.costs import NOTHING, Cost
from gradex_fast.errors import GradexError
from gradex_fast.select.estimator import in_tie_order
from gradex_fast.select.threshold import ranking
from gradex_fast.state import Run
from gradex_fast.types import Estimates, Example, Selection

_MADE: dict[str, Callable[[Run], bool]] = {
    "meta": lambda run: run.workspace.done("meta") is not None,
    "sketch": lambda run: run.train is not None,
    "estimate": lambda run: run.estimator is not None,
    "select": lambda run: run.selection is not None,
}


@dataclass(frozen=True)
class Scored:
    """A figure for every source.

    Attributes:
        score: float64 [n], lower for a better source; NaN where there is none.
        natural: how many of the best the method keeps where nobody says how many.
        low, high: 95 % interval of `score`.
    """

    score: np.ndarray
    natural: int
    cost: Cost = NOTHING
    low: np.ndarray | None = None
    high: np.ndarray | None = None


@dataclass(frozen=True)
class Rival:
    """A selection by scores.

    Attributes:
        score: (run, options) -> Scored. needs: stages that the run must have behind it.
    """

    score: Callable[..., Scored]
    needs: tuple[str, ...] = ()

    def __call__(self, run: Run, keep: int | None = None, **options: Any) -> Outcome:
        """The `keep` best sources, or as many as the method keeps by itself; equals in an order drawn from the seed.

        Raises:
            GradexError: a stage is missing, or there are no `keep` sources.
        """
        require(run, self.needs)
        check_keep(run, keep)
        begin = time.monotonic()
        found = self.score(run, **options)
        selection = chosen_by(found, keep, run.recipe.seed)
        cost = found.cost + Cost(seconds=time.monotonic() - begin)
        return Outcome(selection, cost, self.needs)


def require(run: Run, stages: Sequence[str]) -> None:
    """Raises GradexError naming the first stage that the run has not made."""
    for stage in stages:
        if not _MADE[stage](run):
            raise GradexError(
                f"the run has no {stage!r} stage yet: carry it so far first (pipeline.run, until={stage!r})"
            )


def check_keep(run: Run, keep: int | None) -> None:
    count = len(run.corpus.sources)
    if keep is not None and not 1 <= keep <= count:
        raise GradexError(f"keep = {keep}, but there are {count} sources: choose 1 to {count}, or None")


def chosen_by(found: Scored, keep: int | None, seed: int) -> Selection:
    """The lowest scores; equals in an order drawn from the seed, NaN last."""
    order = ranking(in_tie_order(np.arange(len(found.score)), seed), found.score)
    chosen = tuple(sorted(order[: found.natural if keep is None else keep].tolist()))
    return selection_of(chosen, found.score, found.low, found.high)


def selection_of(
    chosen: Sequence[int], score: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None
) -> Selection:
    """A selection that evaluated no subset."""
    nothing, unknown = np.zeros(0), np.full(len(score), np.nan)
    estimates = Estimates(nothing, nothing, nothing, np.zeros((0, 0)))
    bounds = (unknown if bound is None else bound for bound in (low, high))
    return Selection(tuple(chosen), score, *bounds, (), np.zeros((0, len(score)), bool), estimates)


def by_source(run: Run, values: np.ndarray, natural: float, cost: Cost = NOTHING) -> Scored:
    """The score of a source is minus the mean of its rows' values; rows whose value is NaN are left out.

    Args:
        values: float [N], higher for a better row; the sources' rows in their order.
        natural: sources with a mean above this are kept, and one at least.
    """
    ends = np.cumsum([len(source.examples) for source in run.corpus.sources])
    parts = [part[np.isfinite(part)] for part in np.split(np.asarray(values, np.float64), ends[:-1])]
    mean = np.array([part.mean() if len(part) else np.nan for part in parts])
    error = np.array([part.std(ddof=1) / np.sqrt(len(part)) if len(part) > 1 else np.nan for part in parts])
    count = max(1, int(np.sum(mean > natural)))
    return Scored(-mean, count, cost, -mean - 1.96 * error, -mean + 1.96 * error)


def source_examples(run: Run) -> list[Example]:
    """The N rows of all sources, in their order."""
    return [example for source in run.corpus.sources for example in source.examples]


def target_examples(run: Run) -> list[Example]:
    """What is known of the target: its training rows, if any, and its validation rows; never its test rows."""
    return [*run.corpus.train.examples, *run.corpus.validation.examples]
