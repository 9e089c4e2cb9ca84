"""`--dry-run`: the time of a run on this machine, from the speed of one batch."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from rich.console import Console

from gradex_fast.batch import collate, length_batches
from gradex_fast.data import load_corpus
from gradex_fast.losses import sample_losses, token_losses
from gradex_fast.model import load_model, load_tokenizer
from gradex_fast.modules import trainable
from gradex_fast.plan.rows import disk, disk_line, sources, sources_table, unassigned_line
from gradex_fast.plan.stages import FINAL, anchors_recipe, costs_by_stage
from gradex_fast.preflight import check, device_of
from gradex_fast.recipe import Recipe
from gradex_fast.sections import TrainRecipe
from gradex_fast.train import total_steps
from gradex_fast.types import Corpus
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
        "sources": sources(corpus),
        "unassigned": corpus.unassigned,
        "tokens_per_second": speed,
        "seconds": {stage: tokens / speed for stage, tokens in _tokens_by_stage(corpus, recipe).items()},
        "passes": {stage: cost.values() for stage, cost in costs_by_stage(corpus, recipe).items()},
        "trainable_parameters": parameters,
        "bytes": disk(corpus, recipe, parameters),
    }


def print_plan(found: Plan, console: Console) -> None:
    seconds = found["seconds"]
    console.print(sources_table(found["sources"]))
    for line in (
        *unassigned_line(found["unassigned"]),
        f"speed: {found['tokens_per_second']:,.0f} tokens a second, forward and backward, measured on one batch",
        *(_line(stage, each, found["passes"][stage]["flops"]) for stage, each in seconds.items()),
        _line("together", sum(seconds.values()), _sum(cost["flops"] for cost in found["passes"].values())),
        f"trainable parameters: {found['trainable_parameters']:,}",
        disk_line(found["bytes"]),
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


def _tokens_by_stage(corpus: Corpus, recipe: Recipe) -> dict[str, float]:
    """Tokens that go forward and backward in each stage, or what costs as much."""
    parts = (*corpus.sources, corpus.train)
    tokens, rows = sum(source.tokens for source in parts), sum(len(source.examples) for source in parts)

    def trained(recipe: TrainRecipe, share: float = 1.0) -> float:
        samples = total_steps(round(share * rows), recipe) * recipe.batch_size * recipe.accumulation
        return samples * tokens / rows

    anchors = anchors_recipe(recipe)
    return {
        "meta-training": recipe.meta.passes * trained(recipe.train),
        "sketch": (tokens + corpus.validation.tokens) * SKETCH_OVERHEAD,
        "anchors": recipe.estimate.anchors * trained(anchors, recipe.estimate.anchor_fraction),
        FINAL: trained(recipe.train),
    }


def _line(stage: str, seconds: float, flops: float | None) -> str:
    return f"  {stage:<26} about {duration(seconds):>7}, {count_text(flops)} FLOPs"


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(known)
