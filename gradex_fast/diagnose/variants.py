"""The same run with other sketches: another dimension, another margin."""

from __future__ import annotations

import math
from dataclasses import replace

from gradex_fast import pipeline
from gradex_fast.estimate import SubsetEstimator
from gradex_fast.state import Run
from gradex_fast.types import Sketches

NESTED = ("gaussian", "rademacher")
"""Distributions whose first columns do not depend on how many there are."""


def widest(run: Run) -> int:
    """The dimension that one pass must have to serve all of ``diagnose.dims``."""
    return max(*run.recipe.diagnose.dims, run.recipe.sketch.dim)


def folder(run: Run, dim: int, margin: str) -> str:
    """Where the sketches of a variant are kept, below the run's directory."""
    own = (run.recipe.sketch.dim, run.recipe.sketch.margin)
    return "sketches" if (dim, margin) == own else f"diagnosis/sketches-{margin}-{dim}"


def sketched(run: Run, dim: int, margin: str | None = None) -> Run:
    """The run with sketches of d = dim by the same P; sketched once, then read."""
    margin = margin or run.recipe.sketch.margin
    other = variant(run, dim, margin)
    pipeline.sketch(other, folder(run, dim, margin))
    return other


def narrowed(run: Run, dim: int) -> Run:
    """The run with the first columns of its sketches, as a pass of d = dim would have made them (Table 8).

    Growing d keeps the columns up to the factor 1/√d.
    """
    other = variant(run, dim, run.recipe.sketch.margin)
    factor = math.sqrt(run.recipe.sketch.dim / dim)
    other.train, other.validation = (
        Sketches(part.g[:, :dim] * part.g.dtype.type(factor), part.margin, part.loss)
        for part in (run.train, run.validation)
    )
    return other


def estimator_of(run: Run, ridge: float) -> SubsetEstimator:
    """An estimator of the run's sketches, without anchors."""
    estimate = run.recipe.estimate.model_copy(update={"anchors": 0, "ridge": ridge})
    other = replace(run, recipe=run.recipe.model_copy(update={"estimate": estimate}), warnings=[])
    pipeline.estimate(other)
    return other.estimator


def variant(run: Run, dim: int, margin: str) -> Run:
    """The run as if its recipe had other sketches."""
    sketch = run.recipe.sketch.model_copy(update={"dim": dim, "margin": margin})
    recipe = run.recipe.model_copy(update={"sketch": sketch})
    return replace(run, recipe=recipe, identity={**run.identity, "sketch.dim": dim, "sketch.margin": margin})
