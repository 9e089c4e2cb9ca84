"""Choices that look at no data: the pretrained model untouched, all sources (multitask learning), chance."""

from __future__ import annotations

import numpy as np

from gradex_fast.baselines.outcome import Outcome
from gradex_fast.baselines.rival import Scored, selection_of
from gradex_fast.costs import NOTHING
from gradex_fast.state import Run


def pretrained(run: Run, keep: int | None = None) -> Outcome:
    """No source: the pretrained model as it is. `keep` is not looked at."""
    return Outcome(selection_of((), np.zeros(len(run.corpus.sources))), NOTHING)


def everything(run: Run, keep: int | None = None) -> Outcome:
    """All sources: multitask learning (MTL). `keep` is not looked at."""
    count = len(run.corpus.sources)
    return Outcome(selection_of(range(count), np.zeros(count)), NOTHING)


def chance(run: Run, seed: int | None = None) -> Scored:
    """Scores drawn from the seed (None: the recipe's); by itself it keeps half of the sources."""
    count = len(run.corpus.sources)
    drawn = np.random.default_rng(run.recipe.seed if seed is None else seed).random(count)
    return Scored(drawn, max(1, count // 2))
