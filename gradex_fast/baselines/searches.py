"""The selections of `gradex_fast.select` as rivals: over f̂, which is GRADEX, and over f, by real fine-tuning.

The latter are the conventional methods that the GRADEX paper measures itself against: the same forward selection and
the same random ensemble, with a model trained for every subset.
"""

from __future__ import annotations

import time
from typing import Any

from gradex_fast.baselines.outcome import Cost, Outcome
from gradex_fast.baselines.real import RealEstimator
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


def forward_real(run: Run, keep: int | None = None, **options: Any) -> Outcome:
    """Forward selection over f itself (Algorithm 2); `options` as `RealEstimator` has them."""
    check_keep(run, keep)
    estimator = RealEstimator(run, **options)
    selection = forward_selection(estimator, keep=keep)
    return Outcome(selection, estimator.cost, ("meta",) if options.get("start") == "meta" else ())


def ensemble_real(
    run: Run, keep: int | None = None, subsets: int | None = None, fraction: float | None = None, **options: Any
) -> Outcome:
    """The random ensemble over f itself (Algorithm 3).

    Args:
        subsets, fraction: None: the recipe's `select.subsets`, each of which is trained, and `select.fraction`.
    """
    check_keep(run, keep)
    estimator, recipe = RealEstimator(run, **options), run.recipe.select
    drawn = {"subsets": subsets or recipe.subsets, "fraction": fraction or recipe.fraction, "seed": run.recipe.seed}
    selection = random_ensemble(estimator, keep=keep, **drawn)
    return Outcome(selection, estimator.cost, ("meta",) if options.get("start") == "meta" else ())
