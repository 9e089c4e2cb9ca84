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


def require_apart(model: nn.Module, batch: Mapping[str, torch.Tensor], rows: Packed) -> bool:
    """Whether the batch proves that packed samples do not see one another: a supervised one stands behind another.

    Raises:
        GradexError: its loss has a gradient, not exactly 0, by a token before it.
    """
    seen: list[torch.Tensor] = []

    def watch(layer, arguments, output):
        seen.append(output.detach().requires_grad_())
        return seen[-1]

    plain = model.get_base_model() if hasattr(model, "get_base_model") else getattr(model, "module", model)
    hook = plain.get_input_embeddings().register_forward_hook(watch)
    try:
        with torch.enable_grad():
            losses, supervised = (rows.per_sample(tensor) for tensor in token_losses(model, batch)[:2])
    finally:
        hook.remove()
    last = int(supervised.any(1).nonzero().max()) if supervised.any() else 0
    found = torch.autograd.grad(losses[last].sum(), seen, allow_unused=True)
    if not seen or any(gradient is None or gradient[0, : rows.starts[last]].any() for gradient in found):
        raise GradexError(
            f"{type(plain).__name__} does not keep packed samples apart: a sample's loss depends on the tokens before "
            "it; give it padded rows"
        )
    return last > 0
