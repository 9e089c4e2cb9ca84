"""What both plans say of a run's rows and of its disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from gradex_fast.recipe import Recipe
from gradex_fast.types import Corpus

_COUNTS = ("rows", "tokens", "cut", "dropped")


def sources(corpus: Corpus) -> list[dict[str, Any]]:
    """Of every source and part of the target: its name and its counts."""
    parts = (*corpus.sources, corpus.train, corpus.validation, corpus.test)
    return [
        {"name": s.name, "rows": len(s.examples), "tokens": s.tokens, "cut": s.truncated, "dropped": s.dropped}
        for s in parts
    ]


def sources_table(found: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("source", *(Column(name, justify="right") for name in _COUNTS))
    for source in found:
        table.add_row(Text(source["name"]), *(f"{source[key]:,}" for key in _COUNTS))
    return table


def unassigned_line(rows: int) -> list[str]:
    return [f"rows that name no source, left out: {rows:,}"] if rows else []


def disk(corpus: Corpus, recipe: Recipe, parameters: int) -> dict[str, int]:
    """Bytes of a run's directory.

    Args:
        parameters: that are trained.
    """
    rows = sum(len(source.examples) for source in (*corpus.sources, corpus.train, corpus.validation))
    sketches, weights = rows * (4 * recipe.sketch.dim + 24), 4 * parameters
    checkpoint = 3 * weights if recipe.train.checkpoints else 0
    # meta and final; an old and a new checkpoint side by side
    return {"sketches": sketches, "at_most": sketches + 2 * weights + 2 * checkpoint}


def disk_line(found: Mapping[str, int]) -> str:
    size = {name: f"{count / 2**20:.1f} MiB" for name, count in found.items()}
    return f"disk: {size['sketches']} of sketches, {size['at_most']} at most with models and checkpoints"
