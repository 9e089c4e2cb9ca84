"""Rivals side by side on one run: what each chose and what it cost."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradex_fast.accounts import shared_costs
from gradex_fast.baselines.outcome import Outcome
from gradex_fast.baselines.registry import QUICK, RIVALS
from gradex_fast.costs import Cost, together
from gradex_fast.errors import GradexError
from gradex_fast.state import Run


@dataclass(frozen=True)
class Row:
    """One rival of the table.

    Attributes:
        chosen: names of the sources. scores: float64 [n], lower for a better source.
        cost: what the rival itself did. whole: that and the stages of the run on which it builds.
        gradex: the whole of GRADEX, to which the others are compared.
    """

    name: str
    chosen: tuple[str, ...]
    scores: np.ndarray
    cost: Cost
    whole: Cost
    gradex: Cost
    outcome: Outcome

    def values(self) -> dict[str, Any]:
        """JSON values; null for what is not known."""
        scores = [float(score) if np.isfinite(score) else None for score in self.scores]
        costs = {"cost": self.cost.values(), "whole": self.whole.values(), "times_gradex": self.times_gradex()}
        return {"name": self.name, "chosen": list(self.chosen), "scores": scores, **costs}

    def times_gradex(self) -> dict[str, float | None]:
        """FLOPs and seconds of the whole over GRADEX's; None where one is not known."""
        pairs = {name: (getattr(self.whole, name), getattr(self.gradex, name)) for name in ("flops", "seconds")}
        ratios = {name: own / theirs if theirs else np.nan for name, (own, theirs) in pairs.items()}
        return {name: ratio if np.isfinite(ratio) else None for name, ratio in ratios.items()}


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
    outcomes: dict[str, Outcome] = {}
    for name in names:
        with run.reporter.stage(f"rival {name}"):
            outcomes[name] = RIVALS[name](run, keep=keep, **options.get(name, {}))
    return _rows(run, outcomes)


def _rows(run: Run, outcomes: Mapping[str, Outcome]) -> list[Row]:
    shared, names, count = shared_costs(run), run.corpus.names, len(run.corpus.sources)
    wholes = {
        name: together([*(shared[stage] for stage in outcome.needs), outcome.cost])
        for name, outcome in outcomes.items()
    }
    own = wholes.get("gradex") or together([*shared.values(), run.costs["select"]])
    return [
        Row(
            name,
            tuple(names[index] for index in outcome.selection.chosen),
            outcome.selection.scores[:count],
            outcome.cost,
            wholes[name],
            own,
            outcome,
        )
        for name, outcome in outcomes.items()
    ]


def check_names(names: Sequence[str] | None) -> None:
    """Raises GradexError for a name that no rival has."""
    for name in names or ():
        if name not in RIVALS:
            near = difflib.get_close_matches(name, RIVALS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RIVALS)}"
            raise GradexError(f"unknown rival {name!r}; {hint}")
