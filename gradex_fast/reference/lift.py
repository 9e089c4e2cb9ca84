"""The adjoint of the sketch: from d numbers back to a parameter (DESIGN §2, `lift`)."""

from __future__ import annotations

import numpy as np

from gradex_fast.reference.gaussian import projection


def lift(weights: np.ndarray, size: int, *, name: str, seed: int, offset: int = 0) -> np.ndarray:
    """weights [m, dim] · Pᵀ / √dim, float64 [m, size]; ⟨project(g), w⟩ = ⟨g, lift(w)⟩."""
    dim = weights.shape[1]
    return weights.astype(np.float64) @ projection(name, seed, size, dim, offset).T / np.sqrt(dim)
