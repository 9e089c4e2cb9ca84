"""One row by plain autograd, beside what the taps gave: what they do not see is found, parameter by parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from gradex_fast.batch import collate
from gradex_fast.capture import Capture
from gradex_fast.errors import GradexError
from gradex_fast.losses import token_losses
from gradex_fast.modes import evaluating
from gradex_fast.modules import encodes
from gradex_fast.pieces import packed_row
from gradex_fast.rows import Packed, laid_out
from gradex_fast.taps import RowsUnknown
from gradex_fast.terms import Term, add_gradient, add_sketch, width
from gradex_fast.types import Example

LARGEST = 1 << 28
"""A model with more sketched parameters is not checked: the row's whole gradient is formed."""

_TOLERANCES = {torch.float32: (1e-3, 1e-5), torch.float64: (1e-3, 1e-5)}
"""Of a parameter's own share of the sketch, and of the whole (rounding errors of a share that should be 0)."""
_LOW_PRECISION_TOLERANCES = (0.1, 0.02)  # a batch of one and a batch of many round differently in bfloat16


def check_row(
    model: nn.Module,
    capture: Capture,
    batch: Mapping[str, torch.Tensor],
    margin: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    plan: Mapping[str, Any],
    found: torch.Tensor,
) -> None:
    """One sample's sketch [d] beside that of its true gradient; then every tapped parameter's share of it.

    Raises:
        RowsUnknown: the taps do not see all uses of some parameters; it names them.
        GradexError: they do, and yet the sketch is another: samples are mixed.
    """
    seen = {name: found.new_zeros(1, plan["dim"]) for name in capture.parameters if name not in capture.slow}

    def receive(name: str, term: Term) -> None:
        add_sketch(seen[name], term, name, plan)

    given, rows = laid_out(batch, encodes(model))
    with capture.taps(rows, receive, frozen=False) as leaf, torch.enable_grad():
        objective = margin(*token_losses(model, given, rows.packed)[:2])[1].sum()
        gradients = torch.autograd.grad(objective, [leaf, *capture.parameters.values()], allow_unused=True)[1:]
    exact = {name: torch.zeros_like(found)[None] for name in capture.parameters}
    for name, gradient in zip(exact, gradients, strict=True):
        if gradient is not None:
            add_gradient(exact[name], gradient, name, plan, width(gradient))
    relative, absolute = _TOLERANCES.get(precision(model), _LOW_PRECISION_TOLERANCES)
    total = sum(exact.values())
    size = float(total.norm())
    missed = [n for n in seen if _far(seen[n], exact[n], relative * float(exact[n].norm()) + absolute * size)]
    missed = missed or [n for n in seen if exact[n].any() and not seen[n].any()]  # however small
    if missed:
        raise RowsUnknown(f"{missed[0]} is used outside its layer's own forward", tuple(missed))
    if _far(found, total[0], relative * size):
        error = float((found - total[0]).norm()) / size
        raise GradexError(
            f"self-check: a sample's sketch is {error:.1e} (relative) away from that of its true gradient: this model "
            "mixes the samples of a batch; give it one at a time (sketch.batch_tokens=1)"
        )


def _far(found: torch.Tensor, exact: torch.Tensor, allowed: float) -> bool:
    """What is not finite proves nothing."""
    error = float((found - exact).norm())
    return np.isfinite(error) and error > allowed


def precision(model: nn.Module) -> torch.dtype:
    """In which type the model computes: autocast's where it is on; of several the coarsest, its adapters' too."""
    first = next(model.parameters())
    kind = first.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    types = (parameter.dtype for parameter in model.parameters() if parameter.requires_grad)
    return next((dtype for dtype in types if dtype not in _TOLERANCES), first.dtype)


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
            losses, supervised = (rows.per_sample(tensor) for tensor in token_losses(model, batch, rows.packed)[:2])
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


def require_packable(model: nn.Module, examples: Sequence[Example], pad_id: int) -> None:
    """Before a training that packs: the two shortest rows in one. Raises `GradexError` as `require_apart` does."""
    shortest = sorted(examples, key=lambda example: len(example.input_ids))[:2]
    batch = collate([shortest[0], shortest[-1]], pad_id)
    row = packed_row(batch, [0, 1], batch["attention_mask"].sum(1).tolist())
    device = next(model.parameters()).device
    given, rows = laid_out({name: tensor.to(device) for name, tensor in row.items()}, encodes(model))
    with evaluating(model):
        require_apart(model, given, rows)
