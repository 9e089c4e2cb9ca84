"""The first-order expansion of every row's margin around θ*, and how far it is off (the paper, Tables 1 and 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from gradex_fast.batch import collate
from gradex_fast.fitting import Budget, in_batches
from gradex_fast.losses import MARGINS, sample_losses, token_losses
from gradex_fast.metrics import relative_error
from gradex_fast.modes import evaluating
from gradex_fast.modules import trainable
from gradex_fast.types import Example

Step = Mapping[str, torch.Tensor]
"""Δ by trainable parameter, in the parameters' shapes."""


def length(step: Step) -> float:
    """|Δ| over all parameters."""
    return float(sum(part.detach().double().square().sum() for part in step.values())) ** 0.5


@torch.no_grad()
def margins(
    model: nn.Module, examples: Sequence[Example], margin: str, *, pad_id: int, batch_tokens: int | Budget
) -> tuple[np.ndarray, np.ndarray]:
    """h [n] and ℓ [n] of every row where the model stands, float64."""
    device = next(model.parameters()).device
    found = np.zeros((2, len(examples)))

    def measure(rows: list[int]) -> None:
        batch = collate([examples[row] for row in rows], pad_id)
        losses, supervised, _ = token_losses(model, {k: v.to(device) for k, v in batch.items()})
        found[0, rows] = MARGINS[margin](losses, supervised)[0].double().cpu().numpy()
        found[1, rows] = sample_losses(losses, supervised).double().cpu().numpy()

    with evaluating(model):
        in_batches(examples, Budget.of(batch_tokens), measure)
    return found[0], found[1]


def slopes(model: nn.Module, example: Example, margin: str, steps: Sequence[Step], *, pad_id: int) -> np.ndarray:
    """⟨∇h, Δ⟩ of one row along each of k steps: float64 [k].

    By one backward pass of the row alone: it needs nothing that training does not (second derivatives and forward mode
    are not there for every attention kernel), and a gradient [p] lives no longer than its row.
    """
    parameters = trainable(model)
    device = next(model.parameters()).device
    batch = {name: tensor.to(device) for name, tensor in collate([example], pad_id).items()}
    with evaluating(model), torch.enable_grad():
        objective = MARGINS[margin](*token_losses(model, batch)[:2])[1].sum()
        gradients = torch.autograd.grad(objective, list(parameters.values()), allow_unused=True)
    found = np.zeros(len(steps))
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            found += [float(torch.sum(gradient.double() * step[name].double())) for step in steps]
    return found


@contextmanager
def moved(model: nn.Module, step: Step, scale: float) -> Iterator[None]:
    """While open, the model stands at θ* + scale · Δ."""
    parameters = trainable(model)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.add_(step[name], alpha=scale)
        yield
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(before[name])


def errors(start: np.ndarray, slope: np.ndarray, sketched: np.ndarray, there: np.ndarray, loss: np.ndarray) -> dict:
    """How far expansions of n rows are off at one point.

    Args:
        start: h(θ*). slope: ⟨∇h, Δ⟩. sketched: the same from sketches. there, loss: h and ℓ at θ* + Δ; all [n].

    Returns:
        rrss: Σ (h - ĥ)² / Σ h², ĥ = h(θ*) + ⟨∇h, Δ⟩. rrss_sketched: with the sketched slope.
        rrss_constant: with none, the expansion of order 0. rrss_rows: mean over rows of (h - ĥ)² / max(h, h(θ*))², as
        the authors' code averages. rrss_loss: Σ (ℓ - softplus(-ĥ))² / Σ ℓ².
    """
    line = start + slope
    largest = np.maximum(np.abs(there), np.abs(start))
    return {
        "rrss": relative_error(line, there),
        "rrss_sketched": relative_error(start + sketched, there),
        "rrss_constant": relative_error(start, there),
        "rrss_rows": float(np.mean(np.square((there - line) / largest))),
        "rrss_loss": relative_error(np.logaddexp(0, -line), loss),
    }
