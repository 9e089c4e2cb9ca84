"""A recipe's search, over the run's own estimates or another estimator's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradex_fast.preflight import constraints
from gradex_fast.select import (
    FEW,
    MOST,
    Estimator,
    backward_selection,
    floating_selection,
    forward_selection,
    random_ensemble,
)
from gradex_fast.state import Run
from gradex_fast.types import Selection

GREEDY = {"forward": forward_selection, "backward": backward_selection, "floating": floating_selection}


def search(
    run: Run,
    method: str,
    keep: int | None,
    *,
    estimator: Estimator | None = None,
    progress: Callable[[int], object] | None = None,
    **changes: Any,
) -> Selection:
    """Carry out "forward", "backward", "floating" or "ensemble" with the recipe's options and constraints.

    Args:
        keep: how many sources; None: decided by the search.
        estimator: None: the run's. changes: options of the search that are not the recipe's.
    """
    recipe, over = run.recipe.select, run.estimator if estimator is None else estimator
    shared = {"keep": keep, "constraints": constraints(run.recipe, run.corpus), "seed": run.recipe.seed}
    if method != "ensemble":
        return GREEDY[method](over, **{"whole": recipe.whole, "progress": progress, **shared, **changes})
    options = {key: getattr(recipe, key) for key in ("subsets", "fraction", "threshold", "sampling")}
    options["ratios"] = {"few": FEW, "most": MOST}.get(recipe.ratios, recipe.ratios)
    return random_ensemble(over, **{"progress": progress, **options, **shared, **changes})
