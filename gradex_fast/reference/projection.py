"""One entry over the distributions of P: its elements and the scale of P's products (DESIGN §2)."""

from __future__ import annotations

import math

import numpy as np

from gradex_fast.reference import gaussian, rademacher, tensorsketch

DISTRIBUTIONS = ("gaussian", "rademacher", "tensorsketch")


def projection(
    name: str,
    seed: int,
    size: int,
    dim: int,
    offset: int = 0,
    distribution: str = "gaussian",
    width: int | None = None,
) -> np.ndarray:
    """P [size, dim] for the elements offset ... offset + size - 1 of parameter `name`, as float64.

    Args:
        width: how many elements make a line (the parameter's last dimension); only TensorSketch's P depends on it.

    Raises:
        ValueError: an unknown distribution.
    """
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"distribution must be one of {DISTRIBUTIONS}, got {distribution!r}")
    if distribution == "tensorsketch":
        return tensorsketch.projection(name, seed, size, dim, offset, width)
    return {"gaussian": gaussian, "rademacher": rademacher}[distribution].projection(name, seed, size, dim, offset)


def scale(distribution: str, dim: int) -> float:
    """What makes E ⟨scale Pᵀa, scale Pᵀb⟩ = ⟨a, b⟩: 1/√dim for entries of variance 1, 1 for TensorSketch."""
    return 1.0 if distribution == "tensorsketch" else 1 / math.sqrt(dim)
