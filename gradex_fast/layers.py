"""The kinds of layers that have taps: from (input, output gradient) to the terms of a parameter's gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from gradex_fast.modules import is_conv1d
from gradex_fast.terms import Factors, LookUps, Term

Kind = Callable[[nn.Module, torch.Tensor, torch.Tensor], Iterator[Term]]
"""(layer, input [n, t, p] or ids [n, t], output gradient [n, t, q]) → terms."""


def linear(layer: nn.Linear, x: torch.Tensor, d: torch.Tensor) -> Iterator[Term]:
    """y = x Wᵀ + b."""
    yield Factors("weight", x, d)
    if layer.bias is not None:
        yield _flat("bias", d)


def conv1d(layer: nn.Module, x: torch.Tensor, d: torch.Tensor) -> Iterator[Term]:
    """transformers' y = x W + b: the weight is stored [p, q], so the two factors change places."""
    yield Factors("weight", d, x)
    yield _flat("bias", d)


def embedding(layer: nn.Embedding, ids: torch.Tensor, d: torch.Tensor) -> Iterator[Term]:
    """y = W[id]: no dense [vocabulary, width] gradient."""
    rows = ids.reshape(len(d), -1)
    padding = -1 if layer.padding_idx is None else layer.padding_idx
    yield LookUps("weight", d, rows.masked_fill(rows == padding, -1))


def layer_norm(layer: nn.LayerNorm, x: torch.Tensor, d: torch.Tensor) -> Iterator[Term]:
    """y = γ x̂ + β, x̂ = (x - mean) / deviation."""
    yield from _scaled(F.layer_norm(x.float(), x.shape[-1:], eps=layer.eps), d)


def rms_norm(layer: nn.RMSNorm, x: torch.Tensor, d: torch.Tensor) -> Iterator[Term]:
    """y = γ x̂, x̂ = x / √(mean x² + ε); a missing ε is that of the input's own type."""
    eps = torch.finfo(x.dtype).eps if layer.eps is None else layer.eps
    yield from _scaled(F.rms_norm(x.float(), x.shape[-1:], eps=eps), d)


def scale(layer: nn.Module, x: torch.Tensor, d: torch.Tensor) -> Iterator[Term]:
    """y = (c + γ) x̂ + β for whatever the layer calls x̂ and c: x̂ = y(γ = 1) - y(γ = 0)."""
    yield from _scaled(slope(layer, x.float()), d)


LAYER_KINDS: dict[type, Kind] = {
    nn.Linear: linear,
    nn.Embedding: embedding,
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: rms_norm,
}
"""Exact types only: a subclass may compute something else."""


def table_kind(layer: nn.Module) -> Kind | None:
    """The kind that the layer's class says by itself."""
    return conv1d if is_conv1d(layer) else LAYER_KINDS.get(type(layer))


def slope(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """x̂ [..., width] of a norm y = (c + γ) x̂ + β: y(γ = 1) - y(γ = 0)."""
    zero = torch.zeros(x.shape[-1], device=x.device)
    return output_at(layer, x, zero + 1, zero) - output_at(layer, x, zero, zero)


@torch.no_grad()
def output_at(layer: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The layer's output [..., width] with other parameters, in float32."""
    values = {"weight": weight, "bias": bias}
    return functional_call(layer, {name: values[name] for name, _ in layer.named_parameters()}, (x,))


def _scaled(normal: torch.Tensor, d: torch.Tensor) -> Iterator[Term]:
    """Of y = γ x̂ + β, the terms of γ and β."""
    d = d.float()
    yield _flat("weight", d * normal)
    yield _flat("bias", d)


def _flat(attribute: str, gradients: torch.Tensor) -> Factors:
    """The term of a flat parameter whose gradient is a sum over tokens of [n, t, width]."""
    total = gradients.sum(1, keepdim=True, dtype=torch.float32)
    return Factors(attribute, total, total.new_ones(len(total), 1, 1))
