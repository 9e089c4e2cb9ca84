"""The sketch of per-sample gradients: form the gradient, form P, multiply (DESIGN §2)."""

from __future__ import annotations

import numpy as np

from gradex_fast.reference.gaussian import projection


def sketch(
    inputs: np.ndarray,
    grads: np.ndarray,
    *,
    name: str,
    seed: int,
    dim: int,
    lengths: np.ndarray | None = None,
    offset: int = 0,
) -> np.ndarray:
    """Row i = Pᵀ vec(Σ_t grads[i, t] ⊗ inputs[i, t]) / √dim, over t < lengths[i].

    Args:
        inputs: [n, t, p], what the layer was given.
        grads: [n, t, q], the gradient of its output.

    Returns:
        float64 [n, dim]; P's element index is j = offset + output · p + input.
    """
    n, t, p = inputs.shape
    size = grads.shape[2] * p
    gradients = np.zeros((n, size))
    for i in range(n):
        kept = t if lengths is None else lengths[i]
        gradients[i] = (grads[i, :kept].astype(np.float64).T @ inputs[i, :kept].astype(np.float64)).reshape(size)
    return project(gradients, name=name, seed=seed, dim=dim, offset=offset)


def project(rows: np.ndarray, *, name: str, seed: int, dim: int, offset: int = 0) -> np.ndarray:
    """rows [n, p] · P [p, dim] / √dim with P's rows counted from `offset`; float64 [n, dim]."""
    return rows.astype(np.float64) @ projection(name, seed, rows.shape[1], dim, offset) / np.sqrt(dim)


def sketch_rows(values: np.ndarray, rows: np.ndarray, *, name: str, seed: int, dim: int, **plan) -> np.ndarray:
    """Row i = scale · Pᵀ vec(G_i), G_i[r] = Σ_{t: rows[i, t] = r} values[i, t]; values [n, t, w], float64 [n, dim]."""
    out = np.zeros((len(values), dim))
    for row in np.unique(rows[rows >= 0]).tolist():
        gradient = np.where(rows[:, :, None] == row, values, 0).astype(np.float64).sum(1)
        out += project(gradient, name=name, seed=seed, dim=dim, offset=row * values.shape[2], **plan)
    return out
