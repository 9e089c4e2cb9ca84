"""What is looked at before a run starts, so that it does not fail after hours."""

from __future__ import annotations

import os
import re

import numpy as np
import torch
from torch import nn

from gradex_fast import sharded
from gradex_fast.clustering import require_scikit_learn
from gradex_fast.constraints import Constraints
from gradex_fast.errors import GradexError
from gradex_fast.model import position_limit
from gradex_fast.modules import trainable
from gradex_fast.placement import require_bits_and_bytes
from gradex_fast.recipe import Recipe
from gradex_fast.reporting import require_reports
from gradex_fast.sections import ClustersRecipe
from gradex_fast.types import Corpus


def device_of(recipe: Recipe) -> str:
    """`usable_device` of the recipe."""
    return usable_device(recipe.device)


def usable_device(name: str) -> str:
    """The device of this name, or the best there is for "auto". Raises `GradexError` where torch cannot use it."""
    if torch.cuda.is_available():  # "cuda" is then this process's own among those that torchrun started here
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise GradexError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return name


def check(recipe: Recipe, corpus: Corpus) -> None:
    """Raises `GradexError` for what would fail only after hours."""
    sharded.check(recipe.model)
    if recipe.model.quantization:
        require_bits_and_bytes()
    for training in filter(None, (recipe.train, recipe.estimate.anchor_train)):
        require_reports(training)
        if training.packing and recipe.model.task == "sequence-classification":
            raise GradexError("train.packing: a classifier's rows cannot be packed")
    if recipe.clusters:
        check_clusters(recipe.clusters, corpus)
    elif (recipe.select.keep or 0) > len(corpus.sources):
        raise GradexError(
            f"select.keep is {recipe.select.keep}, more than the number of sources ({len(corpus.sources)})"
        )
    else:
        constraints(recipe, corpus)
    parts = (*corpus.sources, corpus.train, corpus.validation, corpus.test)
    longest, limit = max(len(e.input_ids) for part in parts for e in part.examples), position_limit(recipe.model)
    if limit is not None and longest > limit:
        raise GradexError(
            f"a row has {longest} tokens, but {recipe.model.name!r} has {limit} positions; set data.max_length={limit}"
        )


def constraints(recipe: Recipe, corpus: Corpus) -> Constraints:
    """What the selection must hold, must not hold and may cost. Raises `GradexError` if nothing can be chosen so."""
    wanted, sources = recipe.select, corpus.sources
    unit = "tokens" if wanted.max_tokens is not None else "rows"
    costs = [source.tokens if unit == "tokens" else len(source.examples) for source in sources]
    limits = {"costs": costs, "budget": getattr(wanted, f"max_{unit}"), "unit": unit}
    try:
        found = Constraints.named(corpus.names, wanted.include, wanted.exclude, **limits)
        found.check(np.arange(len(sources)), wanted.keep)
    except ValueError as error:
        raise GradexError(f"select: {error}") from error
    return found


def check_clusters(recipe: ClustersRecipe, corpus: Corpus) -> None:
    """Raises `GradexError` for a source that is not there, too few rows, or where scikit-learn is missing."""
    require_scikit_learn()
    rows = {source.name: len(source.examples) for source in corpus.sources}
    if recipe.sources == "all":
        _check_count(recipe.count, "the sources together have", sum(rows.values()))
        return
    for name in recipe.sources:
        if name not in rows:
            raise GradexError(f"clusters.sources: there is no source {name!r}; there are {', '.join(rows)}")
        _check_count(recipe.count, f"source {name!r} has", rows[name])


def _check_count(count: int, who: str, rows: int) -> None:
    if 2 * count > rows:
        raise GradexError(f"clusters.count is {count}, but {who} {rows} rows: {rows // 2} at most, two rows a cluster")


def check_parameters(recipe: Recipe, model: nn.Module) -> None:
    """Raises `GradexError` if the pattern ``sketch.parameters`` finds none of the trainable parameters."""
    pattern, names = recipe.sketch.parameters, trainable(model)
    if pattern is not None and not any(re.search(pattern, name) for name in names):
        raise GradexError(f"sketch.parameters {pattern!r} is in no parameter's name; one is {next(iter(names))}")
