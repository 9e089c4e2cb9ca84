"""The selections of `gradex_fast.select` as rivals: over f̂, which is GRADEX, and over f, by real fine-tuning.

The latter are the conventional methods that the GRADEX paper measures itself against: the same forward selection and
the same random ensemble, with a model trained for every subset.
"""

from __future__ import annotations

import time
from typing import Any

from gradex_fast.accounts import searched
from gradex_fast.baselines.outcome import Outcome
from gradex_fast.baselines.real import RealEstimator
from gradex_fast.baselines.rival import check_keep, require
from gradex_fast.search import search
from gradex_fast.state import Run

NEEDS = ("meta", "sketch", "estimate")


def gradex(run: Run, keep: int | None = None) -> Outcome:
    """The recipe's own search once more, to time it and for another `keep`; None: the recipe's.

    Raises:
        GradexError: the run has no estimator yet, or there are no `keep` sources.
    """
    require(run, NEEDS)
    check_keep(run, keep)
    recipe, begin, before = run.recipe.select, time.monotonic(), run.estimator.tally.copy()
    selection = search(run, recipe.method, recipe.keep if keep is None else keep)
    return Outcome(selection, searched(run, before).taking(time.monotonic() - begin), NEEDS)


def forward_real(run: Run, keep: int | None = None, **options: Any) -> Outcome:
    """Forward selection over f itself (Algorithm 2); `options` as `RealEstimator` has them."""
    check_keep(run, keep)
    estimator = RealEstimator(run, **options)
    selection = search(run, "forward", keep, estimator=estimator)
    return Outcome(selection, estimator.cost, ("meta",) if options.get("start") == "meta" else ())


def ensemble_real(
    run: Run, keep: int | None = None, subsets: int | None = None, fraction: float | None = None, **options: Any
) -> Outcome:
    """The random ensemble over f itself (Algorithm 3).

    Args:
        subsets, fraction: None: the recipe's `select.subsets`, each of which is trained, and `select.fraction`.
    """
    check_keep(run, keep)
    estimator = RealEstimator(run, **options)
    changes = {key: value for key, value in {"subsets": subsets, "fraction": fraction}.items() if value is not None}
    selection = search(run, "ensemble", keep, estimator=estimator, **changes)
    return Outcome(selection, estimator.cost, ("meta",) if options.get("start") == "meta" else ())
