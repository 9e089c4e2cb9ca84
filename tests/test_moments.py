"""`benchmarks/check_moments.py` at 10⁶ entries (its 10⁸ are in benchmarks/results), and that it can find fault."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import check_moments


@pytest.mark.parametrize("kind", check_moments.KINDS)
def test_a_million_entries(kind: str) -> None:
    for name, row in check_moments.measure(kind, 10**6, 256, seed=0).items():
        assert row["off"] <= check_moments.LIMIT, (name, row)


MERGED = np.eye(64)
MERGED[1] = MERGED[0]
"""Bucket 1 falls into bucket 0."""


def of(kind: str, change) -> dict[str, float]:
    sums = check_moments.Sums(64)
    for x in check_moments.blocks(kind, 10**6, 64, seed=0):
        sums.add(change(x))
    return {name: row["off"] for name, row in check_moments.statistics(kind, sums).items()}


@pytest.mark.parametrize(
    ("kind", "change", "statistic"),
    [
        ("gaussian", lambda x: x + 0.01, "mean"),
        ("gaussian", lambda x: 1.01 * x, "variance"),
        ("gaussian", lambda x: np.clip(x, -2.5, 2.5), "kurtosis"),
        ("gaussian", lambda x: np.repeat(x[::2], 2, 0), "neighbouring elements"),
        ("gaussian", lambda x: np.concatenate([x[:, :-1], x[:, :1]], 1), "correlations of columns, mean z²"),
        ("rademacher", lambda x: x * np.where(np.arange(64) < 8, np.sign(x[:, :1]), 1), "means of columns, mean z²"),
        ("rademacher", lambda x: x * (1 + 1e-5), "variance"),
        ("tensorsketch inputs", lambda x: abs(x), "mean"),
        ("tensorsketch outputs", lambda x: x @ MERGED, "variances of columns, mean z²"),
    ],
)
def test_faults_are_found(kind: str, change, statistic: str) -> None:
    assert of(kind, change)[statistic] > check_moments.LIMIT
