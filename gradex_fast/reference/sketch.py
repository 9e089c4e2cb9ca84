"""The sketch of per-sample gradients: form the gradient, form P, multiply (DESIGN §2)."""

from __future__ import annotations

import numpy as np

from gradex_fast.reference.projection import projection, scale


def sketch(
    inputs: np.ndarray,
    grads: np.ndarray,
    *,
    name: str,
    seed: int,
    dim: int,
    lengths: np.ndarray | None = None,
    offset: int = 0,
    distribution: str = "gaussian",
) -> np.ndarray:
    """Row i = scale · Pᵀ vec(Σ_t grads[i, t] ⊗ inputs[i, t]), over t < lengths[i].

    Args:
        inputs: [n, t, p], what the layer was given.
        grads: [n, t, q], the gradient of its output.

    Returns:
        float64 [n, dim]; P's element index is j = offset + output · p + input, its width p.
    """
    n, t, p = inputs.shape
    size = grads.shape[2] * p
    gradients = np.zeros((n, size))
    for i in range(n):
        kept = t if lengths is None else lengths[i]
        gradients[i] = (grads[i, :kept].astype(np.float64).T @ inputs[i, :kept].astype(np.float64)).reshape(size)
    plan = {"name": name, "seed": seed, "dim": dim, "offset": offset, "distribution": distribution}
    return project(gradients, width=p, **plan)


def project(
    rows: np.ndarray,
    *,
    name: str,
    seed: int,
    dim: int,
    offset: int = 0,
    distribution: str = "gaussian",
    width: int | None = None,
) -> np.ndarray:
    """rows [n, p] · scale P [p, dim] with P's rows counted from `offset`; float64 [n, dim].

    `width`: the elements of a line, for TensorSketch alone; None: the whole row is one.
    """
    size = rows.shape[1]
    matrix = projection(name, seed, size, dim, offset, distribution, width or max(1, size))
    return rows.astype(np.float64) @ matrix * scale(distribution, dim)


def sketch_rows(values: np.ndarray, rows: np.ndarray, *, name: str, seed: int, dim: int, **plan) -> np.ndarray:
    """Row i = scale · Pᵀ vec(G_i), G_i[r] = Σ_{t: rows[i, t] = r} values[i, t]; values [n, t, w], float64 [n, dim]."""
    out = np.zeros((len(values), dim))
    for row in np.unique(rows[rows >= 0]).tolist():
        gradient = np.where(rows[:, :, None] == row, values, 0).astype(np.float64).sum(1)
        out += project(
            gradient, name=name, seed=seed, dim=dim, offset=row * values.shape[2], width=values.shape[2], **plan
        )
    return out
