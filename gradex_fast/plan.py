"""`--dry-run`: rows, tokens, time and disk of a run, before anything is written."""

from __future__ import annotations

import time

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradex_fast.batch import collate, length_batches
from gradex_fast.data import load_corpus
from gradex_fast.model import load_model, load_tokenizer, sample_losses, token_losses, trainable
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe, TrainRecipe
from gradex_fast.train import total_steps
from gradex_fast.types import Corpus, Source

SKETCH_OVERHEAD = 1.3
"""A sketch pass against a plain forward and backward pass of the same batch; a rough figure for the plan."""


def plan(recipe: Recipe, reporter: Reporter) -> int:
    """Print what a run would do. The speed is measured on one batch of the recipe's own rows."""
    tokenizer = load_tokenizer(recipe.model)
    corpus = load_corpus(recipe, tokenizer)
    model = load_model(recipe.model, recipe.seed, "cpu" if recipe.device == "auto" else recipe.device)
    parameters = sum(parameter.numel() for parameter in trainable(model).values())
    speed = tokens_per_second(model, corpus, recipe, tokenizer.pad_token_id)
    console = Console()
    console.print(_rows(corpus))
    for line in (*_times(corpus, recipe, speed), *_disk(corpus, recipe, parameters)):
        console.print(line, highlight=False)
    return 0


def tokens_per_second(model: torch.nn.Module, corpus: Corpus, recipe: Recipe, pad_id: int) -> float:
    """Tokens of one plain forward and backward pass in a second, the faster of two tries."""
    examples = [example for source in corpus.sources for example in source.examples]
    lengths = [len(example.input_ids) for example in examples]
    middle = length_batches(lengths, min(recipe.sketch.batch_tokens, 4096))
    rows = middle[len(middle) // 2]
    batch = {k: v.to(next(model.parameters()).device) for k, v in collate([examples[r] for r in rows], pad_id).items()}
    seconds = []
    for _ in range(2):
        start = time.monotonic()
        losses, supervised, _ = token_losses(model, batch)
        sample_losses(losses, supervised).mean().backward()
        seconds.append(time.monotonic() - start)
    return sum(lengths[row] for row in rows) / min(seconds)


def _rows(corpus: Corpus) -> Table:
    table = Table("source", "rows", "tokens", "cut", "dropped")
    for source in (*corpus.sources, corpus.train, corpus.validation, corpus.test):
        figures = (len(source.examples), source.tokens, source.truncated, source.dropped)
        table.add_row(Text(source.name), *(f"{figure:,}" for figure in figures))
    return table


def _times(corpus: Corpus, recipe: Recipe, speed: float) -> list[str]:
    everything = _tokens(*corpus.sources, corpus.train)
    anchors = recipe.estimate.anchor_train or recipe.train
    rows = sum(len(source.examples) for source in (*corpus.sources, corpus.train))

    def epochs(training: TrainRecipe) -> float:
        return total_steps(rows, training) * training.batch_size * training.accumulation / rows

    share = recipe.estimate.anchors * recipe.estimate.anchor_fraction
    stages = {
        "meta-training": everything * epochs(recipe.train),
        "sketch": (everything + corpus.validation.tokens) * SKETCH_OVERHEAD,
        "anchors": everything * epochs(anchors) * share,
        "final training (at most)": everything * epochs(recipe.train),
    }
    lines = [f"speed: {speed:,.0f} tokens a second, forward and backward, measured on one batch"]
    lines += [f"  {name:<26} about {_duration(tokens / speed)}" for name, tokens in stages.items()]
    return [*lines, f"  {'together':<26} about {_duration(sum(stages.values()) / speed)}"]


def _disk(corpus: Corpus, recipe: Recipe, parameters: int) -> list[str]:
    rows = sum(len(source.examples) for source in (*corpus.sources, corpus.train, corpus.validation))
    sketches, weights = rows * (4 * recipe.sketch.dim + 24), 4 * parameters
    checkpoint = 3 * weights if recipe.train.checkpoints else 0
    total = sketches + 2 * weights + 2 * checkpoint  # meta and final; an old and a new checkpoint side by side
    return [
        f"trainable parameters: {parameters:,}",
        f"disk: {sketches / 2**20:.1f} MiB of sketches, {total / 2**20:.1f} MiB at most with models and checkpoints",
    ]


def _tokens(*sources: Source) -> int:
    return sum(source.tokens for source in sources)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
