"""One row through a model, forward, backward and as a sketch's pass, to count the matrix products of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gradex_fast.head import logits_at
from gradex_fast.modules import grouped, trainable
from gradex_fast.sections import SketchRecipe


def row_pass(model: nn.Module, sketch: SketchRecipe, task: str, t: int, s: int) -> tuple[float, ...]:
    """FLOPs of a row of t tokens, s of them supervised: the four figures of `flops.PassFlops`."""
    everything = trainable(model)
    own = [everything[name] for name in grouped(everything, {"": sketch.parameters})]
    with _Taps(model, own) as taps, torch.enable_grad(), _Counter() as forward:
        objective = logits(model, task, t, s, taps.leaf.device).sum()
    backward, slopes = (_backward(objective, wanted) for wanted in (list(everything.values()), [taps.leaf]))
    weights = _backward(objective, own) if len(own) < len(everything) else backward
    found = taps.elements, taps.entries, taps.transforms
    return forward.flops, backward, slopes, sketch_flops(sketch.distribution, sketch.dim, weights - slopes, *found)


def logits(model: nn.Module, task: str, t: int, s: int, device: torch.device) -> torch.Tensor:
    """Of a row of t tokens at s positions, [1, s, V]; a classifier's [1, V]."""
    ids = torch.zeros(1, t, dtype=torch.long, device=device)
    if task == "sequence-classification":
        return model(input_ids=ids).logits
    places = torch.arange(s, device=device)[None]
    return logits_at(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, places, t)


def _backward(objective: torch.Tensor, wanted: Sequence[torch.Tensor]) -> int:
    """FLOPs of the backward pass that asks for these gradients, and forms no others."""
    with _Counter() as found:
        torch.autograd.grad(objective, wanted, retain_graph=True, allow_unused=True)
    return found.flops


class _Counter(TorchDispatchMode):
    """FLOPs by the library's table of operations.

    Its own FlopCounterMode, against which the tests hold this one, keeps them by module: three times as slow.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: tuple = (), named: Any = None) -> Any:
        found = operation(*arguments, **(named or {}))
        if count := flop_registry.get(operation._overloadpacket):
            self.flops += count(*arguments, **(named or {}), out_val=found)
        return found


class _Taps:
    """While open, all layers that own one of the parameters hang on `leaf`, and tell the sizes of their gradients.

    Attributes:
        elements: of the row's gradients that are projected; of a table that is looked up, those of the row's tokens.
        entries, transforms: numbers and tokens of the factors that a TensorSketch reads.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        self.leaf = torch.zeros((), device=parameters[0].device, requires_grad=True)
        self.elements = self.entries = self.transforms = 0
        self._model, self._ids = model, {id(parameter) for parameter in parameters}

    def __enter__(self) -> _Taps:
        owned = {module: self._owned(module) for module in self._model.modules()}
        self._hooks = [module.register_forward_hook(self._tap) for module, own in owned.items() if own]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _owned(self, module: nn.Module) -> list[nn.Parameter]:
        return [parameter for parameter in module.parameters(recurse=False) if id(parameter) in self._ids]

    def _tap(self, module: nn.Module, arguments: tuple, output: Any) -> Any:
        if not isinstance(output, torch.Tensor):
            return output  # a router: the gradient reaches it through what its scores weigh
        for parameter in self._owned(module):
            tokens = output.numel() // output.shape[-1]
            looked_up = isinstance(module, nn.Embedding)
            self.elements += output.numel() if looked_up else parameter.numel()
            self.entries += output.numel() if looked_up else tokens * sum(parameter.shape)
            self.transforms += 0 if looked_up else 2 * tokens + 1
        return output + self.leaf


def sketch_flops(
    distribution: str, dim: int, products: float, elements: float, entries: float, transforms: float
) -> float:
    """Of Pᵀ vec(D Xᵀ): the product D Xᵀ, and 2 d an element of it.

    A TensorSketch forms neither: it reads every entry once and takes FFTs, at 2.5 d log₂ d each.

    Args:
        products: FLOPs of D Xᵀ. elements: that are projected. entries, transforms: see `_Taps`.
    """
    if distribution != "tensorsketch":
        return products + 2.0 * dim * elements
    return 2.0 * entries + 2.5 * dim * math.log2(max(2, dim)) * transforms
