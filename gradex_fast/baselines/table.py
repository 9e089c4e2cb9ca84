"""Rivals side by side on one run: what each chose and what it cost."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from gradex_fast.baselines.outcome import Cost, Outcome, forward, forward_backward, training
from gradex_fast.baselines.registry import QUICK, RIVALS
from gradex_fast.errors import GradexError
from gradex_fast.state import Run


@dataclass(frozen=True)
class Row:
    """One rival of the table.

    Attributes:
        chosen: names of the sources. scores: float64 [n], lower for a better source.
        cost: what the rival itself did. whole: that and the stages of the run on which it builds.
    """

    name: str
    chosen: tuple[str, ...]
    scores: np.ndarray
    cost: Cost
    whole: Cost
    outcome: Outcome

    def values(self) -> dict[str, Any]:
        """JSON values; null for what is not known."""
        scores = [float(score) if np.isfinite(score) else None for score in self.scores]
        costs = {"cost": asdict(self.cost), "whole": asdict(self.whole)}
        for cost in costs.values():
            cost["seconds"] = cost["seconds"] if np.isfinite(cost["seconds"]) else None
        return {"name": self.name, "chosen": list(self.chosen), "scores": scores, **costs}


def compare(
    run: Run,
    names: Sequence[str] | None = None,
    keep: int | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Row]:
    """Carry out rivals on a run that has come to its `select` stage.

    Args:
        names: which of `RIVALS`; None: `QUICK`, those that train no model for every subset.
        keep: how many sources each chooses; None: as many as it keeps by itself.
        options: of single rivals, by name.

    Raises:
        GradexError: an unknown name, options for a rival that is not asked for, or what a rival itself refuses.
    """
    names, options = QUICK if names is None else tuple(names), options or {}
    check_names([*names, *options])
    if stray := set(options) - set(names):
        raise GradexError(f"options for {min(stray)!r}, which is not among the rivals: {', '.join(names)}")
    shared = shared_costs(run)
    rows = []
    for name in names:
        with run.reporter.stage(f"rival {name}"):
            outcome = RIVALS[name](run, keep=keep, **options.get(name, {}))
        whole = reduce(add, (shared[stage] for stage in outcome.needs), outcome.cost)
        chosen = tuple(run.corpus.names[index] for index in outcome.selection.chosen)
        scores = outcome.selection.scores[: len(run.corpus.sources)]
        rows.append(Row(name, chosen, scores, outcome.cost, whole, outcome))
    return rows


def shared_costs(run: Run) -> dict[str, Cost]:
    """Of the stages that GRADEX and some rivals share: the meta-training, the sketches, and the anchors."""
    validation = run.corpus.validation.examples
    trained = forward([*validation, *run.corpus.test.examples])  # every training ends with its figures
    meta = reduce(add, [training(run.examples(), run.recipe.train)] * run.recipe.meta.passes, trained)
    meta += _seconds(run.workspace.done("meta"))
    sketch = forward_backward([*run.examples(), *validation])
    if note := run.workspace.done("sketch"):  # of the rows that the last call sketched
        note = {"seconds": note["seconds"] * sketch.forward_rows / note["rows"]}
    sketch += _seconds(note)
    anchors = [Cost()]
    for index, mask in enumerate([] if run.truths is None else run.truths):
        examples = run.examples(np.flatnonzero(mask[: len(run.corpus.sources)]))
        recipe = run.recipe.estimate.anchor_train or run.recipe.train
        anchors.append(training(examples, recipe) + trained + _seconds(run.workspace.done(f"anchor {index + 1}")))
    return {"meta": meta, "sketch": sketch, "estimate": reduce(add, anchors)}


def _seconds(note: Mapping[str, Any] | None) -> Cost:
    return Cost(seconds=note["seconds"] if note else np.nan)


def check_names(names: Sequence[str] | None) -> None:
    """Raises GradexError for a name that no rival has."""
    for name in names or ():
        if name not in RIVALS:
            near = difflib.get_close_matches(name, RIVALS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RIVALS)}"
            raise GradexError(f"unknown rival {name!r}; {hint}")
