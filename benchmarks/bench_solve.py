"""pytest benchmarks/bench_solve.py: a batch of subset regressions on one data matrix."""

from __future__ import annotations

import numpy as np
import pytest

from gradex_fast import kernels

SIZES = {"demo": (500, 20, 100, 1000), "medium": (12_800, 100, 100, 50)}


def problem(rows: int, groups: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit rows around a common mean and one of their group; margins as of a half-trained model."""
    draw = np.random.default_rng(0)
    pointer = np.linspace(0, rows, groups + 1).astype(np.int64)
    centres = 0.35 * draw.normal(size=dim) + 0.35 * draw.normal(size=(groups, dim))
    features = np.repeat(centres, np.diff(pointer), axis=0) + draw.normal(size=(rows, dim))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), 1.3 + 1.1 * draw.normal(size=rows), pointer


@pytest.mark.parametrize("size", SIZES)
def test_solve(benchmark, size: str) -> None:
    rows, groups, dim, count = SIZES[size]
    features, margins, pointer = problem(rows, groups, dim)
    draw = np.random.default_rng(1)
    subsets = [draw.choice(groups, 3 * groups // 4, replace=False) for _ in range(count)]
    benchmark.extra_info["subsets"] = count
    solutions = benchmark.pedantic(
        kernels.solve, (features, margins, pointer, subsets), {"l2": 0.03 * 0.024}, rounds=3, warmup_rounds=1
    )
    assert (solutions.status == kernels.Status.CONVERGED).all()
