"""Which kind a layer of a model is.

A class that is not in the table is tried: a norm is known by its parameters and then proved on random numbers, an
embedding that scales or shifts its ids is asked which rows it read. What fails has no kind and takes the slow way.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from gradex_fast.layers import Kind, embedding, linear, output_at, scale, slope, table_kind

_LINEAR = ("FalconLinear",)
"""Subclasses of Linear with the function of a Linear in other words. (Of others the weight may serve elsewhere.)"""
_NO_BATCH = "relative_attention_bias"
"""T5's table of distances gives [query, key, head]: its leading dimension is no batch, even where it has n rows."""


def kind_of(model: nn.Module, path: str) -> Kind | None:
    """How the layer at `path` is tapped; None if it is not."""
    layer, parts = model.get_submodule(path), path.split(".")
    parents = [(parts[end - 1], model.get_submodule(".".join(parts[:end]))) for end in range(1, len(parts))]
    if parts[-1] == _NO_BATCH or any(_routes(*parent) for parent in parents):
        return None
    if len(getattr(layer, "normalized_shape", ())) > 1:  # a norm over two dimensions has no [t, width]
        return None
    if isinstance(layer, nn.Embedding):
        return embedding
    if type(layer).__name__ in _LINEAR:
        return linear
    return table_kind(layer) or (scale if _is_scale(layer) else None)


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
        y, zero, normal = output_at(layer, x, weight, bias), output_at(layer, x, 0 * weight, 0 * bias), slope(layer, x)
        pieces = [output_at(layer, part, weight, bias) for part in (x[:1], x[:, 1:], x[:, :, 0])]
    except (RuntimeError, TypeError, ValueError, IndexError):
        return False
    close = partial(torch.allclose, rtol=1e-4, atol=1e-5)
    alone = all(map(close, pieces, (y[:1], y[:, 1:], y[:, :, 0])))
    return alone and close(y, zero + weight * normal + (bias if "bias" in own else 0))
