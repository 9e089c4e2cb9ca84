"""One row by plain autograd, beside what the taps gave: no layer may use its weights behind the taps' back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from gradex_fast import kernels
from gradex_fast.capture import width
from gradex_fast.errors import GradexError
from gradex_fast.losses import token_losses

LARGEST = 1 << 28
"""A model with more sketched parameters is not checked: the row's whole gradient is formed."""

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
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
            kernels.project(gradient.reshape(1, -1), name=name, out=total, width=width(gradient), **plan)
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
