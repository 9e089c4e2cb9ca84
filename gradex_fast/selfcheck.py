"""One row by plain autograd, beside what the taps gave: no layer may use its weights behind the taps' back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from gradex_fast import kernels
from gradex_fast.errors import GradexError
from gradex_fast.losses import token_losses
from gradex_fast.rows import Packed

LARGEST = 1 << 28
"""A model with more sketched parameters is not checked: the row's whole gradient is formed."""

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
_LEAK = {torch.float32: 1e-5, torch.float64: 1e-5}
_LOW_PRECISION_LEAK = 1e-2  # of the same row in the same kernels: only a router's groups may round differently
_LOW_PRECISION_TOLERANCE = 0.1  # a batch of one and a batch of many round differently in bfloat16


def exact_sketch(
    model: nn.Module,
    batch: Mapping[str, torch.Tensor],
    margin: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    parameters: Mapping[str, nn.Parameter],
    plan: Mapping[str, Any],
) -> torch.Tensor:
    """Σ over the batch of Pᵀ∇h_i / √d, [1, d], from the gradient of every parameter at once."""
    with torch.enable_grad():
        losses, supervised, _ = token_losses(model, batch)
        objective = margin(losses, supervised)[1].sum()
    found = torch.autograd.grad(objective, list(parameters.values()), allow_unused=True)
    total = torch.zeros(1, plan["dim"], device=objective.device)
    for name, gradient in zip(parameters, found, strict=True):
        if gradient is not None:
            kernels.project(gradient.reshape(1, -1), name=name, out=total, **plan)
    return total


def require_equal(sketch: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> None:
    """Raises GradexError if a row's sketch [d] is not that of its true gradient [1, d]."""
    norm = float(exact.norm())
    error = float((sketch - exact[0]).norm()) / norm if norm > 0 else 0.0
    if np.isfinite(error) and error > _TOLERANCE.get(dtype, _LOW_PRECISION_TOLERANCE):
        raise GradexError(
            f"self-check: a sample's sketch is {error:.1e} (relative) away from that of its true gradient: some layer "
            "of this model uses its weights outside its own forward; leave it out by sketch.parameters or the adapter"
        )


def precision(model: nn.Module) -> torch.dtype:
    """In which type the model computes: autocast's where it is on."""
    parameter = next(model.parameters())
    kind = parameter.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else parameter.dtype


@torch.no_grad()
def require_apart(model: nn.Module, batch: Mapping[str, torch.Tensor], rows: Packed) -> None:
    """Raises GradexError if a packed sample's losses change with the tokens of those before it."""
    start, ids = int(rows.starts[-1]), batch["input_ids"]
    other = {**batch, "input_ids": torch.cat([ids[:, :start].flip(1), ids[:, start:]], 1)}
    (before, after) = (rows.per_sample(token_losses(model, given)[0])[-1].float() for given in (batch, other))
    change = float((before - after).abs().max()) / max(float(before.abs().max()), 1e-6)
    if change > _LEAK.get(precision(model), _LOW_PRECISION_LEAK):
        raise GradexError(
            f"{type(getattr(model, 'base_model', model)).__name__} does not keep packed samples apart: a sample's loss "
            f"changes by {change:.1e} (relative) with the tokens before it; give it padded rows"
        )
