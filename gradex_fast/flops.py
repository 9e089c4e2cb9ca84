"""FLOPs of a row on its way through a model, as torch counts the matrix products that the pass really makes.

The count is the library's, `torch.utils.flop_counter`. It needs no weights: on the meta device nothing is computed, and
a model of 8 billion parameters is counted in some ten seconds, a small one in a fraction of one. A formula of ours
(2 × parameters × tokens, twice that backward) would have to know which parameters a token meets (look-ups, tied heads,
experts) and which gradients a frozen base below its adapters still needs; the counter sees both.

A row of t tokens, s of them supervised, costs c₀ + c₁ t + c₂ t² + c₃ s: attention is quadratic, and the head sees
supervised positions only. Four passes tell the four coefficients.

A FLOP is a multiplication or an addition of a matrix product; norms, softmax, look-ups and the optimiser have none.
Padding does not count. Attention is eager, and whole under a causal mask: a kernel that leaves out the masked half, or
computes a part twice, does not change the figure.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import nn

from gradex_fast.model import load_outline
from gradex_fast.modes import evaluating
from gradex_fast.row_pass import row_pass
from gradex_fast.sections import ModelRecipe, SketchRecipe
from gradex_fast.types import Example

_log = logging.getLogger(__name__)

SHAPES = ((2, 1), (4, 1), (8, 1), (8, 2))
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
    return float((features(shapes) @ coefficients).sum()) if shapes else 0.0


@lru_cache(32)
def pass_flops(model: ModelRecipe, sketch: SketchRecipe) -> PassFlops:
    """Of the recipe's model; NaN where the meta device cannot carry out its passes, and the log says so."""
    try:
        return counted(load_outline(model), sketch, model.task)
    except Exception as error:  # whatever a model does there: an account is no reason to stop a run
        _log.warning("the FLOPs of %s are not known: %s", model.name, str(error).partition("\n")[0])
        return PassFlops(*np.full((4, 4), np.nan))


def counted(model: nn.Module, sketch: SketchRecipe, task: str = "causal-lm") -> PassFlops:
    """`pass_flops` of a model, wherever it is."""
    with evaluating(model):
        found = [row_pass(model, sketch, task, *shape) for shape in SHAPES]
    return PassFlops(*np.linalg.solve(features(SHAPES), np.array(found, float)).T.round(3))


def features(shapes: Sequence[tuple[int, int]]) -> np.ndarray:
    """[n, 4]: 1, t, t² and s of every (t, s)."""
    t, s = np.array(shapes, float).T
    return np.stack([np.ones_like(t), t, t * t, s], axis=1)
