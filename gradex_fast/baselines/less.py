"""LESS: gradient similarity as Adam sees it (Xia, Malladi, Gururangan, Arora and Chen, ICML 2024, arXiv 2402.04333).

The influence of a training row i on a target row v is, over checkpoints of a warm-up training (§3.2),

    Inf(i, v) = Σ_checkpoints η̄ cos(∇ℓ_v(θ), Γ_i(θ)),   Γ_i = Adam's direction for row i alone (§3.1, `adam.direction`).

A row's score is the mean over the target's validation rows, as in the authors' code; the paper's maximum over subtasks
has one subtask here. LESS keeps rows; the score of a source is minus the mean over its rows.

What the run has decides the rest. There is one checkpoint, θ*, so η̄ cancels. Adam's moments are gone with the
meta-training's checkpoints: they are Adam's recursion over one pass of all rows at θ*, in the batches and with the
clipping of the training. Gradients are of whatever the run trains, LoRA or all parameters.

`less` is exact by default. A mean of cosines is ⟨Γ_i/|Γ_i|, u⟩ with u = mean_v ∇ℓ_v/|∇ℓ_v|, so that one gradient and u
are all there is to keep, [p] each, and no projection is needed; `dim` asks for the paper's random signs (§4.1, there
8,192), which serve to store gradients for later targets. `less_sgd` is ∇ℓ_i in place of Γ_i, by the sketches that
the run has: no pass of its own, and the projection's error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from gradex_fast import kernels
from gradex_fast.baselines.adam import direction, moments
from gradex_fast.baselines.cosine import unit
from gradex_fast.baselines.gradients import gradients
from gradex_fast.baselines.rival import Scored, by_source, source_examples
from gradex_fast.errors import GradexError
from gradex_fast.model import load_model
from gradex_fast.modules import trainable
from gradex_fast.state import Run
from gradex_fast.types import Example


def less(run: Run, dim: int | None = None) -> Scored:
    """Three passes: batches of all rows, each validation row, each row. By itself it keeps sources that help.

    Args:
        dim: project by so many random signs before the cosines; None: exact.
    """
    model = load_model(run.recipe.model, run.recipe.seed, run.device, trained=run.path / "meta")
    size = sum(parameter.numel() for parameter in trainable(model).values())
    everything, rows, target = run.examples(), source_examples(run), run.corpus.validation.examples
    batches = shuffled(everything, run.recipe.train.batch_size * run.recipe.train.accumulation, run.recipe.seed)
    before = moments(gradients(model, batches, run.pad_id), size, run.recipe.train.max_grad_norm)
    towards = _mean(_units(gradients(model, [[row] for row in target], run.pad_id), dim))
    steps = (direction(gradient, before) for gradient in gradients(model, [[row] for row in rows], run.pad_id))
    values = np.array([float(step @ towards) for step in _units(steps, dim)])
    cost = run.passes.forward_backward([*everything, *target, *rows])
    return by_source(run, values, natural=0.0, cost=cost)


def less_sgd(run: Run) -> Scored:
    """Mean cosine of the run's sketches with those of the validation rows.

    ∇h = -∇ℓ / (1 - p̄) with the sequence margin: the cosine of two sketches is that of the losses' gradients.

    Raises:
        GradexError: sketches of another margin, whose gradients are not the loss's.
    """
    if run.recipe.sketch.margin != "sequence":
        raise GradexError(f"less_sgd needs sketch.margin = sequence, not {run.recipe.sketch.margin}; or take less")
    towards = np.nanmean(unit(run.validation.g.astype(np.float64)), axis=0)
    values = unit(run.train.g[: len(source_examples(run))].astype(np.float64)) @ towards
    return by_source(run, values, natural=0.0)


def shuffled(examples: Sequence[Example], size: int, seed: int) -> list[list[Example]]:
    """All rows once, in batches of `size`, in an order drawn from the seed."""
    order = np.random.default_rng(seed).permutation(len(examples))
    return [[examples[row] for row in order[start : start + size]] for start in range(0, len(order), size)]


def _units(rows: Iterator[torch.Tensor], dim: int | None) -> Iterator[torch.Tensor]:
    """Each vector [p], projected if so asked, over its length; one without length stays 0."""
    for row in rows:
        if dim is not None:
            plan = {"name": "less", "seed": 0, "dim": dim, "distribution": "rademacher"}
            row = kernels.project(row[None], **plan)[0]
        length = float(row.norm())
        yield row.cpu() / (length if length > 0 else 1.0)


def _mean(rows: Iterator[torch.Tensor]) -> torch.Tensor:
    """Of the rows that are finite."""
    total, count = 0, 0
    for row in rows:
        if torch.isfinite(row).all():
            total, count = total + row, count + 1
    if not count:
        raise GradexError("no validation row has a finite gradient at θ*: nothing for LESS to compare with")
    return total / count
