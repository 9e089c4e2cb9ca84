"""Bytes of a model and of a pass on a device, from the model's outline: no weights, nothing is computed.

What autograd keeps for a backward pass is counted with the library's hooks on the meta device. A row of t tokens, s of
them supervised, keeps c₀ + c₁ t + c₂ t² + c₃ s bytes; c₂ is attention's scores, which only `eager` attention keeps.
At the height of the backward pass there is a gradient of the largest tensor on its way down, and one being made.
Under gradient checkpointing a row keeps every layer's input, and what is inside of the one that is being run again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from transformers.modeling_layers import GradientCheckpointingLayer

from gradex_fast.capture import Capture
from gradex_fast.flops import SHAPES, features
from gradex_fast.memory import Saved
from gradex_fast.model import load_outline
from gradex_fast.modes import evaluating
from gradex_fast.modules import grouped, trainable
from gradex_fast.row_pass import logits
from gradex_fast.rows import Padded
from gradex_fast.sections import ModelRecipe, SketchRecipe
from gradex_fast.stored import base_bytes, bytes_of, is_linear

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footprint:
    """Bytes of one device that holds the whole model.

    Attributes:
        weights: of all parameters, quantised or not. gradients: of the trained ones, once; AdamW keeps twice as much.
        unpacked: of the largest quantised weight in the type that it computes in, 0 without quantisation.
        trained: elements of the trained parameters. dtype: of most weights before quantisation, such as "bfloat16".
        trained_dtype: of the trained ones.
        training: of a row's training pass, c float64 [4]. sketching: of a row's sketch pass.
        widest: of the largest tensor that is kept, for each token of a row.
    """

    weights: int
    gradients: int
    unpacked: int
    trained: int
    dtype: str
    trained_dtype: str
    training: np.ndarray
    sketching: np.ndarray
    widest: float

    def activations(self, coefficients: np.ndarray, t: int, s: int) -> float:
        """Bytes that a row of t tokens, s of them supervised, adds to a pass at its height; NaN: not known."""
        kept = float(features([(t, s)])[0] @ coefficients)
        return kept + 2 * max(t * self.widest, s * float(coefficients[3]))


@lru_cache(32)
def footprint(model: ModelRecipe, sketch: SketchRecipe) -> Footprint:
    """Of the recipe's model; a pass that the meta device cannot carry out is NaN, and the log says so.

    Raises:
        GradexError: the model's configuration cannot be found.
    """
    outline = load_outline(model)
    try:
        rows = [row_bytes(outline, sketch, model.task, *shape, model) for shape in SHAPES]
    except Exception as error:  # whatever a model does there: sizes of its weights are worth having all the same
        _log.warning("the activations of %s are not known: %s", model.name, str(error).partition("\n")[0])
        rows = [(np.nan,) * 3] * len(SHAPES)
    *passes, widest = np.array(rows, float).T
    training, sketching = np.linalg.solve(features(SHAPES), np.stack(passes, axis=1)).T
    if model.attention != "eager":
        training[2] = sketching[2] = 0.0
    parameters, trained = list(outline.parameters()), list(trainable(outline).values())
    gradients, elements = sum(map(bytes_of, trained)), sum(parameter.numel() for parameter in trained)
    base, unpacked = base_bytes(model) if model.quantization else (0, 0)
    weights = base + gradients if model.quantization else sum(map(bytes_of, parameters))
    t, _ = SHAPES[-1]
    return Footprint(
        weights=weights,
        gradients=gradients,
        unpacked=unpacked,
        trained=elements,
        dtype=_type_of_most(parameters),
        trained_dtype=_type_of_most(trained),
        training=training.round(3),
        sketching=sketching.round(3),
        widest=float(widest[-1]) / t,
    )


def row_bytes(
    model: nn.Module, sketch: SketchRecipe, task: str, t: int, s: int, recipe: ModelRecipe | None = None
) -> tuple[int, int, int]:
    """Bytes that a training pass and a sketch pass over a row keep, and of the largest tensor among them.

    Args:
        recipe: whose quantisation and gradient checkpointing count; None: neither.
    """
    device = next(model.parameters()).device
    training = model.training
    try:
        with torch.enable_grad(), Saved(model.train()) as saved, _told(model, recipe, saved) as again:
            output = logits(model, task, t, s, device)
            widest = max(saved.sizes.values(), default=0)
            kept = saved.with_(output) - _gone(again)
    finally:
        model.train(training)
    capture = Capture(model, grouped(trainable(model), {"": sketch.parameters}))
    taps = capture.taps(Padded(1, (t,)), lambda name, term: None)
    with evaluating(model), taps, torch.enable_grad(), Saved(model) as saved, _told(model, recipe, saved) as again:
        sketched = saved.with_(logits(model, task, t, s, device)) - _gone(again)
    return kept, sketched, widest


def _gone(again: list[int]) -> int:
    """Of what is inside of the layers that run again, all but the largest's."""
    return sum(again) - max(again, default=0)


@contextmanager
def _told(model: nn.Module, recipe: ModelRecipe | None, saved: Saved) -> Iterator[list[int]]:
    """While open, `saved` is told of inputs that are kept past autograd's hooks.

    Gives the bytes inside of each layer that gradient checkpointing runs again.
    """
    hooks, inside, head = [], [], model.get_output_embeddings()
    for module in model.modules() if recipe is not None else ():
        frozen = is_linear(module) and module is not head and not module.weight.requires_grad
        if recipe.quantization == "8bit" and frozen:
            hooks.append(module.register_forward_pre_hook(lambda _, inputs: _keep(saved, inputs)))
        if recipe.gradient_checkpointing and isinstance(module, GradientCheckpointingLayer):

            def enter(_: nn.Module, inputs: tuple, named: dict) -> None:
                _keep(saved, (inputs, named))
                inside.append(-saved.total)

            def leave(*_: object) -> None:
                inside[-1] += saved.total

            hooks += [module.register_forward_pre_hook(enter, with_kwargs=True), module.register_forward_hook(leave)]
    try:
        yield inside
    finally:
        for hook in hooks:
            hook.remove()


def _keep(saved: Saved, inputs: object) -> None:
    for tensor in tree_leaves(inputs):
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            saved.keep(tensor)


def _type_of_most(parameters: list[nn.Parameter]) -> str:
    counts: Counter[torch.dtype] = Counter()
    for parameter in parameters:
        counts[parameter.dtype] += parameter.numel()
    return str(counts.most_common(1)[0][0]).removeprefix("torch.")
