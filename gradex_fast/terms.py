"""The terms of a parameter's per-sample gradient, as taps hand them on, and the sketch of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from gradex_fast import kernels


@dataclass(frozen=True)
class Factors:
    """Element o · p + c of sample i's gradient gets Σ_t grads[i,t,o] · inputs[i,t,c].

    p is the parameter's last dimension (`width`), so that o and c are the same in its whole gradient.

    Attributes:
        attribute: which of the layer's parameters. inputs: [n, t, p]. grads: [n, t, q].
        lengths: [n], where later tokens are padding of the tap's own, with a gradient of 0.
    """

    attribute: str
    inputs: torch.Tensor
    grads: torch.Tensor
    lengths: torch.Tensor | None = None


@dataclass(frozen=True)
class LookUps:
    """Line rows[i,t] of sample i's gradient gets values[i,t].

    Attributes:
        attribute: which of the layer's parameters. values: [n, t, w]. rows: int64 [n, t]; negative: none.
    """

    attribute: str
    values: torch.Tensor
    rows: torch.Tensor


@dataclass(frozen=True)
class Dense:
    """Elements offset, offset + 1, ... of one sample's gradient get `gradient` [elements], some whole lines.

    Attributes:
        attribute: which of the layer's parameters. sample: whose. width: of a line, the parameter's last dimension.
    """

    attribute: str
    gradient: torch.Tensor
    sample: int
    width: int
    offset: int = 0


Term = Factors | LookUps | Dense


def width(parameter: torch.Tensor) -> int:
    """The elements of one of its lines: its last dimension."""
    return parameter.shape[-1] if parameter.ndim else 1


def add_sketch(g: torch.Tensor, term: Term, name: str, plan: Mapping[str, Any]) -> None:
    """g [n, d] += the term's sketch by the P of the parameter `name`; plan: seed, dim, distribution, threads.

    Where layers lie on several devices, a sketch is made on its layer's and then moved.
    """
    if (device := _device(term)) != g.device:
        there = g.new_zeros(g.shape, device=device)
        add_sketch(there, term, name, plan)
        g += there.to(g.device)
    elif isinstance(term, Factors):
        kernels.sketch(term.inputs, term.grads, lengths=term.lengths, name=name, out=g, **plan)
    elif isinstance(term, LookUps):
        kernels.sketch_rows(term.values, term.rows, name=name, out=g, **plan)
    else:
        add_gradient(g[term.sample : term.sample + 1], term.gradient, name, plan, term.width, term.offset)


def add_gradient(
    g: torch.Tensor, gradient: torch.Tensor, name: str, plan: Mapping[str, Any], lines: int, offset: int = 0
) -> None:
    """g [1, d] += the sketch of one gradient, in lines of so many elements."""
    there = g if gradient.device == g.device else g.new_zeros(g.shape, device=gradient.device)
    kernels.project(gradient.reshape(1, -1), name=name, width=lines, offset=offset, out=there, **plan)
    if there is not g:
        g += there.to(g.device)


def _device(term: Term) -> torch.device:
    held = {Factors: "inputs", LookUps: "values", Dense: "gradient"}
    return getattr(term, held[type(term)]).device
