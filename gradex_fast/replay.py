"""Layers that are run again, sample by sample, in the backward pass: routers, fused experts, some of PEFT's adapters.

The gradient of such a layer's own parameters needs its own inputs and its outputs' gradients, nothing else of the
model: one more pass of this layer in all, where the slow way costs a backward pass of the model for every sample. A
sample that alone gives other outputs than among the others (a router's near-tie) is run again among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from gradex_fast.rows import Rows
from gradex_fast.terms import Dense, width

_NAMES = re.compile(r"Router$|Experts$|^DoraLinearLayer$")
_BARE = "ParamWrapper"


def replayable(layer: nn.Module) -> bool:
    """By name: these classes' parameters serve in their own forward pass only."""
    return _NAMES.search(type(layer).__name__) is not None or _is_adapter(layer)


def _is_adapter(layer: nn.Module) -> bool:
    """PEFT's layers whose parameters are no layers of their own, or multiply those of others without calling them."""
    tuned = hasattr(layer, "adapter_layer_names") and hasattr(layer, "base_layer")
    bare = any(isinstance(child, nn.ParameterDict) and len(child) for child in layer.children())
    return type(layer).__name__ == _BARE or (tuned and bare)


def layers_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, dict[str, nn.Parameter]]]:
    """Path, layer and its own parameters; such an adapter is one layer with all that is in it."""
    inside = ()
    for path, layer in model.named_modules():
        if not (inside and path.startswith(inside)):
            whole = _is_adapter(layer)
            inside = (*inside, f"{path}.") if whole else inside
            yield path, layer, dict(layer.named_parameters(recurse=whole))


class Call:
    """One call of a layer: what it was given and what it gave, cut into samples.

    Attributes:
        tensors: the arguments that are tensors, detached; a tap keeps them, and then the outputs.

    Raises:
        ValueError: a tensor among arguments or outputs does not tell its samples.
    """

    def __init__(
        self, layer: nn.Module, own: Collection[str], rows: Rows, arguments: tuple, named: dict[str, Any], outputs: list
    ) -> None:
        self._layer, self._own, self._rows = layer, own, rows
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

    def terms(self, saved: tuple[torch.Tensor, ...], gradients: tuple[torch.Tensor, ...]) -> Iterator[Dense]:
        """Of every sample in turn, given the saved tensors and the gradients of the differentiable outputs."""
        own = {name: self._layer.get_parameter(name).detach().requires_grad_() for name in self._own}
        inputs, outputs = len(self._places), len(saved) - len(self._places)
        kinds = [how for how, t in zip(self._layouts[inputs:], saved[inputs:], strict=True) if t.is_floating_point()]
        for sample in range(self._rows.samples):
            cut = [self._rows.cut(t, how, sample) for t, how in zip(saved, self._layouts, strict=True)]
            d = [self._rows.cut(t, how, sample) for t, how in zip(gradients, kinds, strict=True)]
            after = self._again(own, cut[:inputs])
            if len(after) != outputs or not all(map(_equal, after, cut[inputs:])):
                after, d = self._again(own, saved[:inputs]), list(map(self._only(sample), gradients, kinds))
            tapped = [tensor for tensor in after if tensor.is_floating_point()]
            found = torch.autograd.grad(tapped, list(own.values()), d, allow_unused=True)
            for name, gradient in zip(own, found, strict=True):
                if gradient is not None:
                    yield from _blocks(name, gradient, sample)

    def _only(self, sample: int) -> Callable[[torch.Tensor, str], torch.Tensor]:
        def masked(gradient: torch.Tensor, how: str) -> torch.Tensor:
            zeros = torch.zeros_like(gradient)
            self._rows.cut(zeros, how, sample).copy_(self._rows.cut(gradient, how, sample))
            return zeros

        return masked

    @torch.enable_grad()
    def _again(self, own: dict[str, torch.Tensor], given: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        leaves = list(self._others)
        for place, tensor in zip(self._places, given, strict=True):
            leaves[place] = tensor
        arguments, named = pytree.tree_unflatten(leaves, self._tree)
        with torch.autocast(**self._autocast):
            return tensors(functional_call(self._layer, own, arguments, named))


def tensors(output: Any) -> list[torch.Tensor]:
    """The tensors of a layer's output, tuple or not."""
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def _blocks(name: str, gradient: torch.Tensor, sample: int) -> Iterator[Dense]:
    """A matrix at a time: of fused experts [experts, ...] only those that the sample was routed to."""
    blocks = gradient.flatten(1) if gradient.ndim == 3 else gradient.reshape(1, -1)
    for index in blocks.any(1).nonzero().flatten().tolist():
        yield Dense(name, blocks[index], sample, width(gradient), offset=index * blocks.shape[1])


def _equal(found: torch.Tensor, before: torch.Tensor) -> bool:
    """Numbers to the rounding of another order of sums; choices (which experts) exactly."""
    if not before.is_floating_point() or found.shape != before.shape:
        return torch.equal(found, before)
    slack = 32 * torch.finfo(before.dtype).eps * float(before.abs().max()) if before.numel() else 0.0
    return torch.allclose(found, before, rtol=0, atol=slack)
