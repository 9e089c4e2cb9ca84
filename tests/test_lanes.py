"""The GPU's kernels on the CPU: every way that they cut a layer gives the CPU kernel's sketch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exact_sketch import PLAN, random

from gradex_fast import kernels

WAYS = {
    "a small layer, more samples than a block has": (70, 3, 40, 33, 100),
    "a narrow layer": (5, 7, 8200, 16, 40),
    "a narrow layer, its wide side the output": (5, 7, 9, 15_001, 40),
    "a square layer": (5, 20, 300, 500, 128),
    "a layer of more tiles than chunks": (2, 2, 1100, 500, 8),
    "more blocks of columns than warps": (3, 2, 30, 20, 300),
    "three blocks of columns for eight warps": (3, 2, 30, 20, 96),
}


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_cut_a_layer(way: str, dtype: torch.dtype, distribution: str) -> None:
    n, t, p, q, dim = WAYS[way]
    x, d = random(n, t, p, dtype=dtype), random(n, t, q, dtype=dtype)
    plan = {"dim": dim, "distribution": distribution, **PLAN}
    found = kernels.sketch(x, d, backend="lanes", **plan)
    assert relative(found, kernels.sketch(x, d, **plan)) <= 1e-5
    assert torch.equal(found, kernels.sketch(x, d, backend="lanes", **plan))


@pytest.mark.parametrize("misplaced", [1, 2, 3])
def test_factors_that_start_between_words(misplaced: int) -> None:
    """Contiguous bfloat16 tensors that are not aligned to what a lane reads at once."""
    flat = random(5 * 6 * 32 + 8, dtype=torch.bfloat16)
    x = flat[misplaced : misplaced + 5 * 6 * 32].view(5, 6, 32)
    assert x.is_contiguous() and x.data_ptr() % 8 == 2 * misplaced
    d = random(5, 6, 16, dtype=torch.bfloat16)
    expected = kernels.sketch(x.clone(), d, dim=8, backend="lanes", **PLAN)
    assert torch.equal(kernels.sketch(x, d, dim=8, backend="lanes", **PLAN), expected)


def test_many_lines_of_a_wide_table() -> None:
    values, draw = random(40, 9, 300), np.random.default_rng(0)
    rows = torch.from_numpy(draw.integers(-1, 500, (40, 9)))
    found = kernels.sketch_rows(values, rows, dim=40, backend="lanes", **PLAN)
    assert relative(found, kernels.sketch_rows(values, rows, dim=40, **PLAN)) <= 1e-5


def test_lift_of_more_vectors_than_a_thread_has() -> None:
    weights = random(19, 37)
    found = kernels.lift(weights, 301, backend="lanes", **PLAN)
    assert relative(found, kernels.lift(weights, 301, **PLAN)) <= 1e-6
