"""`--dry-run`: rows, tokens, time and disk of a run, before anything is written."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradex_fast.batch import collate, length_batches
from gradex_fast.costs import Cost, Passes
from gradex_fast.data import load_corpus
from gradex_fast.losses import sample_losses, token_losses
from gradex_fast.model import load_model, load_tokenizer, trainable
from gradex_fast.preflight import check, device_of
from gradex_fast.recipe import Recipe
from gradex_fast.sections import TrainRecipe
from gradex_fast.train import total_steps
from gradex_fast.types import Corpus, Source
from gradex_fast.units import count_text, duration

SKETCH_OVERHEAD = 1.3
"""A sketch pass against a plain forward and backward pass of the same batch; a rough figure for the plan."""

Plan = dict[str, Any]


def plan(recipe: Recipe) -> Plan:
    """What a run would do: JSON values. The speed is measured on one batch of the recipe's own rows.

    Raises:
        GradexError: whatever `pipeline.prepare` would refuse.
    """
    tokenizer = load_tokenizer(recipe.model)
    corpus, device = load_corpus(recipe, tokenizer), device_of(recipe)
    check(recipe, corpus)
    model = load_model(recipe.model, recipe.seed, device)
    parameters = sum(parameter.numel() for parameter in trainable(model).values())
    speed = tokens_per_second(model, corpus, recipe, tokenizer.pad_token_id)
    return {
        "sources": [_source(s) for s in (*corpus.sources, corpus.train, corpus.validation, corpus.test)],
        "unassigned": corpus.unassigned,
        "tokens_per_second": speed,
        "seconds": {stage: tokens / speed for stage, tokens in _tokens_by_stage(corpus, recipe).items()},
        "passes": {stage: cost.values() for stage, cost in _costs_by_stage(corpus, recipe).items()},
        "trainable_parameters": parameters,
        "bytes": _bytes(corpus, recipe, parameters),
    }


def print_plan(found: Plan, console: Console) -> None:
    table = Table("source", "rows", "tokens", "cut", "dropped")
    for source in found["sources"]:
        table.add_row(Text(source["name"]), *(f"{source[key]:,}" for key in ("rows", "tokens", "cut", "dropped")))
    seconds, size = found["seconds"], {name: f"{count / 2**20:.1f} MiB" for name, count in found["bytes"].items()}
    console.print(table)
    if found["unassigned"]:
        console.print(f"rows that name no source, left out: {found['unassigned']:,}", highlight=False)
    for line in (
        f"speed: {found['tokens_per_second']:,.0f} tokens a second, forward and backward, measured on one batch",
        *(_line(stage, each, found["passes"][stage]["flops"]) for stage, each in seconds.items()),
        _line("together", sum(seconds.values()), _sum(cost["flops"] for cost in found["passes"].values())),
        f"trainable parameters: {found['trainable_parameters']:,}",
        f"disk: {size['sketches']} of sketches, {size['at_most']} at most with models and checkpoints",
    ):
        console.print(line, highlight=False)


def tokens_per_second(model: torch.nn.Module, corpus: Corpus, recipe: Recipe, pad_id: int) -> float:
    """Tokens of one plain forward and backward pass in a second, the faster of two tries."""
    examples = [example for source in corpus.sources for example in source.examples]
    lengths = [len(example.input_ids) for example in examples]
    middle = length_batches(lengths, min(recipe.sketch.batch_tokens, 4096))
    rows = middle[len(middle) // 2]
    device = next(model.parameters()).device
    batch = {k: v.to(device) for k, v in collate([examples[r] for r in rows], pad_id).items()}
    seconds = []
    for _ in range(2):
        start = time.monotonic()
        losses, supervised, _ = token_losses(model, batch)
        sample_losses(losses, supervised).mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.monotonic() - start)
    return sum(lengths[row] for row in rows) / min(seconds)


def _source(source: Source) -> Plan:
    figures = {"rows": len(source.examples), "tokens": source.tokens}
    return {"name": source.name, **figures, "cut": source.truncated, "dropped": source.dropped}


def _tokens_by_stage(corpus: Corpus, recipe: Recipe) -> dict[str, float]:
    """Tokens that go forward and backward in each stage, or what costs as much."""
    sources = (*corpus.sources, corpus.train)
    tokens, rows = sum(source.tokens for source in sources), sum(len(source.examples) for source in sources)

    def trained(recipe: TrainRecipe, share: float = 1.0) -> float:
        samples = total_steps(round(share * rows), recipe) * recipe.batch_size * recipe.accumulation
        return samples * tokens / rows

    anchors = _anchors(recipe)
    return {
        "meta-training": recipe.meta.passes * trained(recipe.train),
        "sketch": (tokens + corpus.validation.tokens) * SKETCH_OVERHEAD,
        "anchors": recipe.estimate.anchors * trained(anchors, recipe.estimate.anchor_fraction),
        "final training (at most)": trained(recipe.train),
    }


def _costs_by_stage(corpus: Corpus, recipe: Recipe) -> dict[str, Cost]:
    """The passes of the stages of `_tokens_by_stage`, and their FLOPs; an anchor's rows are the mean source's."""
    passes, validation = Passes.of(recipe), corpus.validation.examples
    rows = [example for source in (*corpus.sources, corpus.train) for example in source.examples]
    ends = passes.forward([*validation, *corpus.test.examples])
    final = passes.training(rows, recipe.train)
    anchor_steps = total_steps(round(recipe.estimate.anchor_fraction * len(rows)), anchors := _anchors(recipe))
    anchor = passes.training(rows, anchors, anchor_steps) + ends
    return {
        "meta-training": final.times(recipe.meta.passes) + ends,
        "sketch": passes.sketch([*rows, *validation]),
        "anchors": anchor.times(recipe.estimate.anchors),
        "final training (at most)": final + ends,
    }


def _anchors(recipe: Recipe) -> TrainRecipe:
    return recipe.estimate.anchor_train or recipe.train


def _line(stage: str, seconds: float, flops: float | None) -> str:
    return f"  {stage:<26} about {duration(seconds):>7}, {count_text(flops)} FLOPs"


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(known)


def _bytes(corpus: Corpus, recipe: Recipe, parameters: int) -> dict[str, int]:
    rows = sum(len(source.examples) for source in (*corpus.sources, corpus.train, corpus.validation))
    sketches, weights = rows * (4 * recipe.sketch.dim + 24), 4 * parameters
    checkpoint = 3 * weights if recipe.train.checkpoints else 0
    # meta and final; an old and a new checkpoint side by side
    return {"sketches": sketches, "at_most": sketches + 2 * weights + 2 * checkpoint}
