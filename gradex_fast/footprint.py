"""Bytes of a model and of a pass on a device, from the model's outline: no weights, nothing is computed.

What autograd keeps for a backward pass is counted with the library's hooks on the meta device. A row of t tokens, s of
them supervised, keeps c₀ + c₁ t + c₂ t² + c₃ s bytes; c₂ is attention's scores, which only `eager` attention keeps.
At the height of the backward pass there is a gradient of the largest tensor on its way down, and one being made.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from gradex_fast.capture import Capture
from gradex_fast.flops import SHAPES, features
from gradex_fast.memory import Saved
from gradex_fast.model import evaluating, grouped, load_outline, trainable
from gradex_fast.row_pass import logits
from gradex_fast.rows import Padded
from gradex_fast.sections import ModelRecipe, SketchRecipe

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footprint:
    """Bytes of one device that holds the whole model.

    Attributes:
        weights: of all parameters. gradients: of the trained ones, once; AdamW keeps twice as much.
        trained: elements of the trained parameters. dtype: of most of the weights, such as "bfloat16".
        training: of a row's training pass, c float64 [4]. sketching: of a row's sketch pass.
        widest: of the largest tensor that is kept, for each token of a row.
    """

    weights: int
    gradients: int
    trained: int
    dtype: str
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
        rows = [row_bytes(outline, sketch, model.task, *shape) for shape in SHAPES]
    except Exception as error:  # whatever a model does there: sizes of its weights are worth having all the same
        _log.warning("the activations of %s are not known: %s", model.name, str(error).partition("\n")[0])
        rows = [(np.nan,) * 3] * len(SHAPES)
    *passes, widest = np.array(rows, float).T
    training, sketching = np.linalg.solve(features(SHAPES), np.stack(passes, axis=1)).T
    if model.attention != "eager":
        training[2] = sketching[2] = 0.0
    parameters, trained = list(outline.parameters()), list(trainable(outline).values())
    size = sum(_bytes(parameter) for parameter in parameters)
    gradients, elements = sum(map(_bytes, trained)), sum(parameter.numel() for parameter in trained)
    by_type: Counter[torch.dtype] = Counter()
    for parameter in parameters:
        by_type[parameter.dtype] += parameter.numel()
    dtype = str(by_type.most_common(1)[0][0]).removeprefix("torch.")
    t, _ = SHAPES[-1]
    return Footprint(size, gradients, elements, dtype, training.round(3), sketching.round(3), float(widest[-1]) / t)


def row_bytes(model: nn.Module, sketch: SketchRecipe, task: str, t: int, s: int) -> tuple[int, int, int]:
    """Bytes that a training pass and a sketch pass over a row keep, and of the largest tensor among them."""
    device = next(model.parameters()).device
    training = model.training
    try:
        with torch.enable_grad(), Saved(model.train()) as saved:
            output = logits(model, task, t, s, device)
            widest = max(saved.sizes.values(), default=0)
            kept = saved.with_(output)
    finally:
        model.train(training)
    capture = Capture(model, grouped(trainable(model), {"": sketch.parameters}))
    taps = capture.taps(Padded(1, (t,)), lambda name, term: None)
    with evaluating(model), taps, torch.enable_grad(), Saved(model) as saved:
        sketched = saved.with_(logits(model, task, t, s, device))
    return kept, sketched, widest


def _bytes(parameter: nn.Parameter) -> int:
    return parameter.numel() * parameter.element_size()
