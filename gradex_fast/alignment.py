"""Gradients of the loss at θ*, by row and by source, against the target's: from sketches alone, in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from gradex_fast.reference.solve import sigmoid
from gradex_fast.types import Sketches, row_ranges


@dataclass(frozen=True)
class Alignments:
    """How far the target's loss falls for a step on each row.

    Attributes:
        value: float64 [n], ⟨∇ℓ_i, ∇ℓ̄⟩ from sketches: to first order at θ*, the fall of the mean validation loss, in
            nats, per unit of learning rate of a plain gradient step on row i alone; above 0, the step helps.
        error: float64 [n], the standard deviation that a Gaussian P gives `value`.
    """

    value: np.ndarray
    error: np.ndarray


def mean_gradient(sketches: Sketches) -> np.ndarray:
    """Mean of σ(-h) g̃, float64 [d]: minus the sketch of the mean loss's gradient. NaN without rows.

    The loss softplus(-h) has the gradient -σ(-h) ∇h; with the sequence margin this is ∇ℓ itself.
    """
    weights, total = sigmoid(-sketches.margin), np.zeros(sketches.g.shape[1])
    for rows in row_ranges(len(sketches)):
        total += weights[rows] @ sketches.g[rows].astype(np.float64)
    return total / len(sketches) if len(sketches) else total * np.nan


def group_gradients(sketches: Sketches, group_ptr: np.ndarray) -> np.ndarray:
    """`mean_gradient` of each of n groups of consecutive rows, float64 [n, d]."""
    return np.stack([mean_gradient(sketches[start:stop]) for start, stop in pairwise(group_ptr)])


def alignments(sketches: Sketches, target: np.ndarray) -> Alignments:
    """Of every row with the target's `mean_gradient` [d]."""
    value, square = np.empty(len(sketches)), np.empty(len(sketches))
    for rows in row_ranges(len(sketches)):
        g = sketches.g[rows].astype(np.float64)
        value[rows], square[rows] = g @ target, np.square(g).sum(1)
    # Var ⟨Pᵀa, Pᵀb⟩/d = (|a|² |b|² + ⟨a, b⟩²) / d
    error = np.sqrt((square * (target @ target) + np.square(value)) / sketches.g.shape[1])
    weights = sigmoid(-sketches.margin)
    return Alignments(weights * value, weights * error)


def cosines(vectors: np.ndarray, target: np.ndarray) -> np.ndarray:
    """float64 [n]; NaN where either has no direction."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return vectors @ target / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(target))


def plane(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Directions [n, d] in two dimensions: the principal components of the unit vectors, which is classical scaling
    of the distances √(2 - 2 cos).

    Returns:
        float64 [n, 2], NaN for a vector without direction, the last one at the right; and the share of the squared
        distances that the plane keeps.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.isfinite(unit).all(1)
    places = np.full((len(vectors), 2), np.nan)
    if not known.any():
        return places, 1.0
    centred = unit[known] - unit[known].mean(0)
    squares, axes = np.linalg.eigh(centred.T @ centred)
    found = np.zeros((len(centred), 2))
    found[:, : min(2, len(squares))] = (centred @ axes[:, ::-1])[:, :2]
    found *= np.where(found[-1] < 0, -1.0, 1.0)
    places[known] = found
    total = squares.sum()
    return places, float(squares[::-1][:2].sum() / total) if total > 0 else 1.0
