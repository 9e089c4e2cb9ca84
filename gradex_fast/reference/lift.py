"""The adjoint of the sketch: from d numbers back to a parameter (DESIGN §2, `lift`)."""

from __future__ import annotations

import numpy as np

from gradex_fast.reference.projection import projection, scale


def lift(
    weights: np.ndarray,
    size: int,
    *,
    name: str,
    seed: int,
    offset: int = 0,
    distribution: str = "gaussian",
    width: int | None = None,
) -> np.ndarray:
    """weights [m, dim] · scale Pᵀ, float64 [m, size]; ⟨project(g), w⟩ = ⟨g, lift(w)⟩. `width`: as in `project`."""
    dim = weights.shape[1]
    matrix = projection(name, seed, size, dim, offset, distribution, width or max(1, size))
    return weights.astype(np.float64) @ matrix.T * scale(distribution, dim)
