"""The kinds of layers that have taps: from (input, output gradient) to the terms of a parameter's gradient.

A class that is not in the table is tried: a norm is known by its parameters and then proved on random numbers, an
embedding that scales or shifts its ids is asked which rows it read. What fails has no kind and takes the slow way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Factors:
    """One term of a parameter's per-sample gradient: element offset + o · p + c gets Σ_t grads[i,t,o] · inputs[i,t,c].

    Attributes:
        attribute: which of the layer's parameters. inputs: [n, t, p]. grads: [n, t, q].
        lengths: [n], where later tokens are padding of the tap's own, with a gradient of 0.
        sample: the term is that of one sample, n = 1.
    """

    attribute: str
    inputs: torch.Tensor
    grads: torch.Tensor
    offset: int = 0
    lengths: torch.Tensor | None = None
    sample: int | None = None


Kind = Callable[[nn.Module, torch.Tensor, torch.Tensor], Iterator[Factors]]
"""(layer, input [n, t, p] or ids [n, t], output gradient [n, t, q]) → terms."""


def linear(layer: nn.Linear, x: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """y = x Wᵀ + b."""
    yield Factors("weight", x, d)
    yield Factors("bias", _ones(d), d)


def conv1d(layer: Conv1D, x: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """y = x W + b: the weight is stored [p, q], so the two factors change places."""
    yield Factors("weight", d, x)
    yield Factors("bias", _ones(d), d)


def embedding(layer: nn.Embedding, ids: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """y = W[id]: one term per row that occurs; no dense [vocabulary, width] gradient."""
    flat, gradients = ids.reshape(len(d), -1), d.float()
    for row in flat.unique().tolist():
        if row != layer.padding_idx:
            hits = (flat == row).to(gradients.dtype)
            rows = torch.einsum("nt,ntw->nw", hits, gradients)[:, None, :]
            yield Factors("weight", rows, _ones(rows), offset=row * layer.embedding_dim)


def layer_norm(layer: nn.LayerNorm, x: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """y = γ x̂ + β, x̂ = (x - mean) / deviation."""
    yield from _scaled(F.layer_norm(x.float(), x.shape[-1:], eps=layer.eps), d)


def rms_norm(layer: nn.RMSNorm, x: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """y = γ x̂, x̂ = x / √(mean x² + ε); a missing ε is that of the input's own type."""
    eps = torch.finfo(x.dtype).eps if layer.eps is None else layer.eps
    yield from _scaled(F.rms_norm(x.float(), x.shape[-1:], eps=eps), d)


def scale(layer: nn.Module, x: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """y = (c + γ) x̂ + β for whatever the layer calls x̂ and c: x̂ = y(γ = 1) - y(γ = 0)."""
    yield from _scaled(_slope(layer, x.float()), d)


LAYER_KINDS: dict[type, Kind] = {
    nn.Linear: linear,
    Conv1D: conv1d,
    nn.Embedding: embedding,
    nn.LayerNorm: layer_norm,
    nn.RMSNorm: rms_norm,
}
"""Exact types only: a subclass may compute something else."""

_LINEAR = ("FalconLinear",)
"""Subclasses of Linear with the function of a Linear in other words. (Of others the weight may serve elsewhere.)"""
_NO_BATCH = "relative_attention_bias"
"""T5's table of distances gives [query, key, head]: its leading dimension is no batch, even where it has n rows."""
_BEHIND = ("ParamWrapper",)
"""PEFT's adapters of bare parameters: they multiply their layers' weights without calling the layers."""


def kind_of(model: nn.Module, path: str) -> Kind | None:
    """How the layer at `path` is tapped; None if it is not."""
    layer, parts = model.get_submodule(path), path.split(".")
    parents = [(parts[end - 1], model.get_submodule(".".join(parts[:end]))) for end in range(1, len(parts))]
    if parts[-1] == _NO_BATCH or any(_routes(*parent) or type(parent[1]).__name__ in _BEHIND for parent in parents):
        return None
    if len(getattr(layer, "normalized_shape", ())) > 1:  # a norm over two dimensions has no [t, width]
        return None
    if isinstance(layer, nn.Embedding):
        return embedding
    if type(layer).__name__ in _LINEAR:
        return linear
    return LAYER_KINDS.get(type(layer)) or (scale if _is_scale(layer) else None)


def _routes(name: str, parent: nn.Module) -> bool:
    """A list of experts: each sees the tokens that were routed to it, in no shape that tells whose they are."""
    return isinstance(parent, nn.ModuleList | nn.ModuleDict) and "expert" in name.lower()


def used(layer: nn.Module, kind: Kind, arguments: tuple, named: dict[str, Any], output: torch.Tensor):
    """What a tap must keep of one call of the layer: (input or ids, kind).

    Raises:
        ValueError: an embedding's subclass does something else than read rows and multiply them by one number, or
            a norm was given more than its input (a gate).
    """
    if kind is scale and len([value for value in (*arguments, *named.values()) if value is not None]) > 1:
        raise ValueError(f"({type(layer).__name__}) was given more than one input")
    if isinstance(layer, nn.Embedding) and type(layer) is not nn.Embedding:
        ids, factor = _rows_read(layer, arguments, named, output.detach())
        return ids, lambda layer, ids, d: kind(layer, ids, d.float() * factor)
    return (arguments[0] if arguments else next(iter(named.values()))).detach(), kind


@torch.no_grad()
def _rows_read(layer: nn.Embedding, arguments, named, output) -> tuple[torch.Tensor, float]:
    """y = s W[id] of a subclass. Tables [vocabulary, 1] of numbers and of ones in W's place give s · id and s."""
    numbers = torch.arange(layer.num_embeddings, dtype=torch.float64, device=layer.weight.device)[:, None]
    tables = numbers, torch.ones_like(numbers), torch.ones_like(numbers, dtype=layer.weight.dtype)
    products, scales, rounded = (functional_call(layer, {"weight": t}, arguments, named)[..., 0] for t in tables)
    ids, factor = (products / scales).round().long(), rounded.flatten()[0].item()
    expected = factor * layer.weight[ids.clamp(0, layer.num_embeddings - 1)].to(output.dtype)
    slack = 4 * torch.finfo(output.dtype).eps * expected.abs().max().item()
    if expected.shape != output.shape or not torch.allclose(expected, output, rtol=0, atol=slack):
        raise ValueError(f"({type(layer).__name__}) is not a scaled table of rows")
    return ids, factor


def _is_scale(layer: nn.Module) -> bool:
    """Parameters γ (and "bias") of one width, one input, and on random numbers y = y(0) + γ x̂ + β, token by token."""
    own = dict(layer.named_parameters())
    widths = {tuple(parameter.shape) for parameter in own.values()}
    needed = [p for p in inspect.signature(layer.forward).parameters.values() if p.default is p.empty]
    if set(own) not in ({"weight"}, {"weight", "bias"}) or len(needed) != 1 or len(widths) != 1:
        return False
    if len(shape := widths.pop()) != 1 or own["weight"].is_meta or getattr(layer, "eps", 0) is None:
        return False
    x, weight, bias = torch.randn(4, 2, 3, 2, *shape, generator=torch.Generator().manual_seed(0)).to(
        own["weight"].device
    )[:3]
    weight, bias = weight[0, 0, 0], bias[0, 0, 0]
    try:
        y, zero, slope = _at(layer, x, weight, bias), _at(layer, x, 0 * weight, 0 * bias), _slope(layer, x)
        pieces = [_at(layer, part, weight, bias) for part in (x[:1], x[:, 1:], x[:, :, 0])]
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    close = partial(torch.allclose, rtol=1e-4, atol=1e-5)
    alone = all(map(close, pieces, (y[:1], y[:, 1:], y[:, :, 0])))
    return alone and close(y, zero + weight * slope + (bias if "bias" in own else 0))


def _slope(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros(x.shape[-1], device=x.device)
    return _at(layer, x, zero + 1, zero) - _at(layer, x, zero, zero)


@torch.no_grad()
def _at(layer: nn.Module, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The layer's output [..., width] with other parameters, in float32."""
    values = {"weight": weight, "bias": bias}
    return functional_call(layer, {name: values[name] for name, _ in layer.named_parameters()}, (x,))


def _scaled(normal: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """Of y = γ x̂ + β, the terms of γ and β."""
    d = d.float()
    rows = (d * normal).sum(1, keepdim=True)
    yield Factors("weight", rows, _ones(rows))
    yield Factors("bias", _ones(d), d)


def _ones(like: torch.Tensor) -> torch.Tensor:
    """[n, t, 1]: the input of a bias."""
    return like.new_ones(*like.shape[:2], 1)
