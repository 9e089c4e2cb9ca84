"""GRADEX itself, as one of the rivals' table."""

from __future__ import annotations

import time

from gradex_fast.baselines.outcome import Cost, Outcome
from gradex_fast.baselines.rival import check_keep, require
from gradex_fast.select import backward_selection, forward_selection, random_ensemble
from gradex_fast.state import Run

NEEDS = ("meta", "sketch", "estimate")


def gradex(run: Run, keep: int | None = None) -> Outcome:
    """The recipe's own search once more, to time it and for another `keep`; None: the recipe's.

    Raises:
        GradexError: the run has no estimator yet, or there are no `keep` sources.
    """
    require(run, NEEDS)
    check_keep(run, keep)
    recipe, begin = run.recipe.select, time.monotonic()
    keep = recipe.keep if keep is None else keep
    if recipe.method == "ensemble":
        options = {"subsets": recipe.subsets, "fraction": recipe.fraction, "seed": run.recipe.seed}
        selection = random_ensemble(run.estimator, keep=keep, **options)
    else:
        search = {"forward": forward_selection, "backward": backward_selection}[recipe.method]
        selection = search(run.estimator, keep=keep)
    return Outcome(selection, Cost(seconds=time.monotonic() - begin), NEEDS)
