"""What every stage of a run will cost, and selection by real fine-tuning in its place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradex_fast.costs import Cost, Passes, together
from gradex_fast.recipe import Recipe
from gradex_fast.sections import TrainRecipe
from gradex_fast.tally import Tally
from gradex_fast.train import total_steps
from gradex_fast.types import Corpus, Example

FINAL = "final training (at most)"

LOOKS = 8
"""At its rows, that solving a subset's regression takes; about as many moves of a greedy step are solved."""


def anchors_recipe(recipe: Recipe) -> TrainRecipe:
    return recipe.estimate.anchor_train or recipe.train


def training_rows(corpus: Corpus) -> list[Example]:
    return [example for source in (*corpus.sources, corpus.train) for example in source.examples]


def costs_by_stage(corpus: Corpus, recipe: Recipe) -> dict[str, Cost]:
    """The stages' passes and FLOPs; an anchor's rows are the mean source's."""
    passes, validation = Passes.of(recipe), corpus.validation.examples
    rows = training_rows(corpus)
    ends = passes.forward([*validation, *corpus.test.examples])
    final = passes.training(rows, recipe.train)
    steps = total_steps(round(recipe.estimate.anchor_fraction * len(rows)), anchors_recipe(recipe))
    anchor = passes.training(rows, anchors_recipe(recipe), steps) + ends
    return {
        "meta-training": final.times(recipe.meta.passes) + ends,
        "sketch": passes.sketch([*rows, *validation]),
        "anchors": anchor.times(recipe.estimate.anchors),
        FINAL: final + ends,
    }


def solving(corpus: Corpus, recipe: Recipe) -> Cost:
    """The search over f̂, on the CPU; a greedy one goes as far as it is asked to, at most to all sources."""
    tally, choice, dim = Tally(), recipe.select, recipe.sketch.dim
    rows, judged, n = len(training_rows(corpus)), len(corpus.validation.examples), candidates(corpus, recipe)
    if choice.method == "ensemble":
        shares = choice.fraction if isinstance(choice.fraction, tuple) else (choice.fraction,)
        for share in shares:
            each = np.full(choice.subsets, share * rows)
            tally.solved(each, np.full(choice.subsets, LOOKS), rows, dim)
            tally.judged(choice.subsets, judged, dim, recipe.estimate.bootstrap)
        return Cost(own_flops=tally.flops)
    rounds = 2 if choice.method == "floating" else 1
    for kept in range(steps_of(recipe, n)):
        inside = n - kept if choice.method == "backward" else kept + 1
        tally.moved(n - kept, min(n - kept, LOOKS), round(rows * inside / n), judged, dim)
    return Cost(own_flops=rounds * tally.flops)


def real_forward(corpus: Corpus, recipe: Recipe) -> Cost:
    """Forward selection that fine-tunes every subset it looks at."""
    passes, n = Passes.of(recipe), candidates(corpus, recipe)
    rows, ends = training_rows(corpus), passes.forward(corpus.validation.examples)
    once = passes.forward_backward(rows)
    looks = [(n - kept, (kept + 1) / n) for kept in range(steps_of(recipe, n))]
    return together((_trained(once, len(rows), recipe.train, share) + ends).times(count) for count, share in looks)


def real_ensemble(corpus: Corpus, recipe: Recipe) -> Cost:
    """The same random subsets as the recipe's, each fine-tuned."""
    passes, choice = Passes.of(recipe), recipe.select
    share = float(np.mean(choice.fraction))
    count = choice.subsets * (len(choice.fraction) if isinstance(choice.fraction, tuple) else 1)
    rows, ends = training_rows(corpus), passes.forward(corpus.validation.examples)
    return (_trained(passes.forward_backward(rows), len(rows), recipe.train, share) + ends).times(count)


def candidates(corpus: Corpus, recipe: Recipe) -> int:
    """Sources to choose from, clusters in their places."""
    cut = recipe.clusters
    if not cut:
        return len(corpus.sources)
    return cut.count if cut.sources == "all" else len(corpus.sources) + len(cut.sources) * (cut.count - 1)


def steps_of(recipe: Recipe, n: int) -> int:
    """Of a greedy search; where `keep` is open, half of the sources."""
    keep = recipe.select.keep or max(1, n // 2)
    return n - keep if recipe.select.method == "backward" and recipe.select.keep else keep


def _trained(once: Cost, rows: int, recipe: TrainRecipe, share: float) -> Cost:
    """A fine-tuning on a share of the rows, of which `once` is a pass over all, by the mean row."""
    samples = total_steps(max(1, round(share * rows)), recipe) * recipe.batch_size * recipe.accumulation
    counted = ("forward_rows", "forward_tokens", "backward_rows", "backward_tokens")
    whole = {name: round(samples / rows * getattr(once, name)) for name in counted}
    return replace(once, **whole, model_flops=samples / rows * once.model_flops)
