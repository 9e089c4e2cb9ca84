"""FLOPs of a row on its way through a model, as torch counts the matrix products that the pass really makes.

`torch.utils.flop_counter` needs no weights: on the meta device nothing is computed, and a model of any size is counted
in about a second. So the count is the library's. A formula of ours (2 × parameters × tokens, twice that backward) would
have to know which parameters a token meets (look-ups, tied heads, experts) and which gradients a frozen base below its
adapters still needs; the counter sees both.

A row of t tokens, s of them supervised, costs c₀ + c₁ t + c₂ t² + c₃ s: attention is quadratic, and the head sees
supervised positions only. Four passes tell the four coefficients.

A FLOP is a multiplication or an addition of a matrix product; norms, softmax, look-ups and the optimiser have none.
Padding does not count. Attention is eager, and whole under a causal mask: a kernel that leaves out the masked half, or
computes a part twice, does not change the figure.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gradex_fast.head import logits_at
from gradex_fast.model import evaluating, grouped, load_outline, trainable
from gradex_fast.sections import ModelRecipe, SketchRecipe
from gradex_fast.types import Example

_log = logging.getLogger(__name__)

_SHAPES = ((2, 1), (4, 1), (8, 1), (8, 2))
"""(t, s) of the passes that tell the coefficients: the shortest that do, for scans are run token by token."""


@dataclass(frozen=True)
class PassFlops:
    """FLOPs of one row, each as c float64 [4] of c₀ + c₁ t + c₂ t² + c₃ s.

    Attributes:
        forward: a forward pass. backward: a backward pass to all trained parameters.
        slopes: a sketch's backward pass, to the outputs of all sketched layers: no gradient of a weight is formed.
        sketch: the sketch's own, 2 p a token and 2 p d a row of p sketched parameters.
    """

    forward: np.ndarray
    backward: np.ndarray
    slopes: np.ndarray
    sketch: np.ndarray


def total(coefficients: np.ndarray, examples: Sequence[Example], head: bool = True) -> float:
    """FLOPs of all rows together; without `head` no logits are formed."""
    shapes = [(len(example.input_ids), example.supervised if head else 0) for example in examples]
    return float((_features(shapes) @ coefficients).sum()) if shapes else 0.0


@lru_cache(32)
def pass_flops(model: ModelRecipe, sketch: SketchRecipe) -> PassFlops:
    """Of the recipe's model; NaN where the meta device cannot carry out its passes, and the log says so."""
    try:
        return counted(load_outline(model), sketch, model.task)
    except (RuntimeError, NotImplementedError) as error:
        _log.warning("the FLOPs of %s are not known: %s", model.name, str(error).splitlines()[0])
        return PassFlops(*np.full((4, 4), np.nan))


def counted(model: nn.Module, sketch: SketchRecipe, task: str = "causal-lm") -> PassFlops:
    """`pass_flops` of a model, wherever it is."""
    with evaluating(model):
        found = [_passes(model, sketch, task, *shape) for shape in _SHAPES]
    return PassFlops(*np.linalg.solve(_features(_SHAPES), np.array(found, float)).T.round(3))


def _features(shapes: Sequence[tuple[int, int]]) -> np.ndarray:
    t, s = np.array(shapes, float).T
    return np.stack([np.ones_like(t), t, t * t, s], axis=1)


def _passes(model: nn.Module, sketch: SketchRecipe, task: str, t: int, s: int) -> tuple[float, ...]:
    """`PassFlops`' four figures of one row."""
    everything = trainable(model)
    own = [everything[name] for name in grouped(everything, {"": sketch.parameters})]
    with _Taps(model, own) as taps, torch.enable_grad(), FlopCounterMode(display=False) as forward:
        objective = _logits(model, task, t, s, taps.leaf.device).sum()
    wanted = list(everything.values()), own, [taps.leaf]
    backward, weights, slopes = (_backward(objective, each) for each in wanted)
    return forward.get_total_flops(), backward, slopes, _sketch(taps, sketch, weights - slopes)


def _logits(model: nn.Module, task: str, t: int, s: int, device: torch.device) -> torch.Tensor:
    ids = torch.zeros(1, t, dtype=torch.long, device=device)
    if task == "sequence-classification":
        return model(input_ids=ids).logits
    places = torch.arange(s, device=device)[None]
    return logits_at(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, places, t)


def _backward(objective: torch.Tensor, wanted: Sequence[torch.Tensor]) -> int:
    """FLOPs of the backward pass that asks for these gradients, and forms no others."""
    with FlopCounterMode(display=False) as found:
        torch.autograd.grad(objective, wanted, retain_graph=True, allow_unused=True)
    return found.get_total_flops()


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


def _sketch(taps: _Taps, sketch: SketchRecipe, products: float) -> float:
    """Of Pᵀ vec(D Xᵀ): the product D Xᵀ, and 2 d an element of it.

    A TensorSketch forms neither: it reads every entry once and takes FFTs, at 2.5 d log₂ d each.
    """
    if sketch.distribution != "tensorsketch":
        return products + 2.0 * sketch.dim * taps.elements
    return 2.0 * taps.entries + 2.5 * sketch.dim * math.log2(max(2, sketch.dim)) * taps.transforms
