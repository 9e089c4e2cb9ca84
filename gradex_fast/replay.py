"""Layers that are run again, sample by sample, in the backward pass: routers, fused experts, DoRA's magnitudes.

The gradient of such a layer's own parameters needs its own inputs and its outputs' gradients, nothing else of the
model: one more pass of this layer in all, where the slow way costs a backward pass of the model for every sample. That
the samples of a layer do not see one another is seen when a sample alone gives the outputs that it gave among others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from gradex_fast.layers import Factors
from gradex_fast.rows import Rows

_NAMES = re.compile(r"Router$|Experts$|^DoraLinearLayer$")


def replayable(layer: nn.Module) -> bool:
    """By name; that the layer may be cut into samples shows when it is run again."""
    return _NAMES.search(type(layer).__name__) is not None


class Call:
    """One call of a layer: what it was given and what it gave, cut into samples.

    Attributes:
        tensors: the arguments that are tensors, detached; a tap keeps them, and then the outputs.

    Raises:
        ValueError: a tensor among arguments or outputs does not tell its samples.
    """

    def __init__(self, layer: nn.Module, rows: Rows, arguments: tuple, named: dict[str, Any], outputs: list) -> None:
        self._layer, self._rows = layer, rows
        leaves, self._tree = pytree.tree_flatten((arguments, named))
        self._others = [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        self._places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
        self.tensors = [leaves[place].detach() for place in self._places]
        self._layouts = [rows.layout(tensor) for tensor in (*self.tensors, *outputs)]
        if not set(self._layouts) <= {"rows", "row", "flat"}:
            shapes = [list(tensor.shape) for tensor in (*self.tensors, *outputs)]
            raise ValueError(f"took and gave {shapes} for {rows.samples} samples: its rows cannot be told apart")
        kind = self.tensors[0].device.type
        self._autocast = {"device_type": kind, "enabled": torch.is_autocast_enabled(kind)}
        self._autocast["dtype"] = torch.get_autocast_dtype(kind)

    def terms(self, saved: tuple[torch.Tensor, ...], gradients: tuple[torch.Tensor, ...]) -> Iterator[Factors]:
        """Of every sample in turn, given the saved arguments and outputs.

        Raises:
            ValueError: a sample alone gives other outputs than it gave among the others.
        """
        own = {name: p.detach().requires_grad_() for name, p in self._layer.named_parameters(recurse=False)}
        for sample in range(self._rows.samples):
            cut = [self._rows.cut(t, how, sample) for t, how in zip(saved, self._layouts, strict=True)]
            given, before = cut[: len(self._places)], cut[len(self._places) :]
            after = self._again(own, given)
            if not all(map(_equal, after, before)):
                raise ValueError(f"({type(self._layer).__name__}) does not treat its samples one by one")
            layouts = self._layouts[len(self._places) :]
            d = [self._rows.cut(t, how, sample) for t, how in zip(gradients, layouts, strict=True)]
            found = torch.autograd.grad(after, list(own.values()), d, allow_unused=True)
            for name, gradient in zip(own, found, strict=True):
                if gradient is not None:
                    yield from _blocks(name, gradient, sample)

    @torch.enable_grad()
    def _again(self, own: dict[str, torch.Tensor], given: list[torch.Tensor]) -> list[torch.Tensor]:
        leaves = list(self._others)
        for place, tensor in zip(self._places, given, strict=True):
            leaves[place] = tensor
        arguments, named = pytree.tree_unflatten(leaves, self._tree)
        with torch.autocast(**self._autocast):
            return differentiable(functional_call(self._layer, own, arguments, named))


def differentiable(output: Any) -> list[torch.Tensor]:
    """The outputs that may have a gradient."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _blocks(name: str, gradient: torch.Tensor, sample: int) -> Iterator[Factors]:
    """A matrix at a time: of fused experts [experts, ...] only those that the sample was routed to."""
    blocks = gradient.flatten(1) if gradient.ndim == 3 else gradient.reshape(1, -1)
    one = blocks.new_ones(1, 1, 1)
    for index in blocks.any(1).nonzero().flatten().tolist():
        yield Factors(name, one, blocks[index][None, None], offset=index * blocks.shape[1], sample=sample)


def _equal(found: torch.Tensor, before: torch.Tensor) -> bool:
    """A row alone is summed in another order."""
    slack = 32 * torch.finfo(before.dtype).eps * float(before.abs().max().nan_to_num())
    return found.shape == before.shape and torch.allclose(found, before, rtol=0, atol=slack, equal_nan=True)
