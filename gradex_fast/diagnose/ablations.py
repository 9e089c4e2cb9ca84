"""The estimate's error against the sketch's dimension (Table 8), the ridge and the margin."""

from __future__ import annotations

from gradex_fast.diagnose import variants
from gradex_fast.diagnose.part import Part, Row
from gradex_fast.diagnose.truth import Truth, agreement


def by_dimension(truth: Truth) -> Part:
    """At the run's ridge. One pass at the largest d serves all, where the distribution's columns are nested."""
    run, dims = truth.run, sorted(truth.run.recipe.diagnose.dims)
    nested = run.recipe.sketch.distribution in variants.NESTED
    wide = variants.sketched(run, variants.widest(run)) if nested else None
    rows: list[Row] = []
    for dim in dims:
        other = variants.narrowed(wide, dim) if nested else variants.sketched(run, dim)
        estimator = variants.estimator_of(other, run.estimator.ridge)
        rows.append({"dim": dim, **agreement(estimator.estimate(truth.subsets).loss, truth)})
    return Part(rows, rows)


def by_ridge(truth: Truth) -> Part:
    """Both margins at multiples of the run's ridge."""
    run = truth.run
    rows: list[Row] = []
    for margin in margins(truth):
        estimator = variants.estimator_of(variants.sketched(run, run.recipe.sketch.dim, margin), run.estimator.ridge)
        for factor in run.recipe.diagnose.ridges:
            at = estimator.at_ridge(run.estimator.ridge * factor)
            figures = agreement(at.estimate(truth.subsets).loss, truth)
            rows.append({"margin": margin, "ridge": at.ridge, **figures})
    return Part(rows, rows)


def margins(truth: Truth) -> tuple[str, ...]:
    """Those that differ: a classifier has one label a row, and its margins are the same."""
    recipe = truth.run.recipe
    return (recipe.sketch.margin,) if recipe.model.task == "sequence-classification" else ("sequence", "token")
