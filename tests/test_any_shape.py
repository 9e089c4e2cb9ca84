"""Whatever shape, type, layout and offset hypothesis thinks of: sketch, project and lift are their specification.

In a file of its own, so that the other tests run where hypothesis is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from distributions import DISTRIBUTIONS, exact_and_allowed
from exact_sketch import MATRIX_UNIT, PLAN, assert_within, dense, random
from hypothesis import given, settings
from hypothesis import strategies as st

from gradex_fast import kernels
from gradex_fast.reference.lift import lift as reference_lift


def on_matrix_unit(bounds: Callable[[], tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """What rounding may do there."""
    before = MATRIX_UNIT.set(True)
    try:
        return bounds()
    finally:
        MATRIX_UNIT.reset(before)


@cache
def values(n: int, t: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(n, t, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


FEATURES = st.integers(1, 40)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    distribution=st.sampled_from(DISTRIBUTIONS),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 6), FEATURES, FEATURES),
    types=st.tuples(DTYPES, DTYPES),
    dim=st.integers(1, 150),
    first=st.one_of(st.integers(0, 5), st.integers(2**32 - 3, 2**32)),
    seed=st.integers(-(2**40), 2**40),
    strided=st.booleans(),
    data=st.data(),
)
def test_any_sketch_project_and_lift(distribution, shape, types, dim, first, seed, strided, data) -> None:
    n, t, p, q = shape
    x, d = values(n, t, 2 * p, 0).to(types[0])[..., ::2], values(n, t, 2 * q, 1).to(types[1])[..., ::2]
    if not strided:
        x, d = x.contiguous(), d.contiguous()
    lengths = data.draw(st.one_of(st.none(), st.lists(st.integers(0, t), min_size=n, max_size=n)))
    name, offset = data.draw(st.text(max_size=5)), first * p
    plan = {"name": name, "seed": seed, "dim": dim}
    exact, allowed = exact_and_allowed(x, d, distribution, lengths=lengths, offset=offset, **plan)
    same = {"distribution": distribution, "offset": offset, "backend": None}
    assert_within(kernels.sketch(x, d, lengths=lengths, **same, **plan), exact, allowed)
    if distribution != "tensorsketch":
        bounds = on_matrix_unit(lambda: exact_and_allowed(x, d, distribution, lengths=lengths, offset=offset, **plan))
        found = kernels.sketch(x, d, lengths=lengths, **{**same, "backend": "lanes"}, **plan)
        assert_within(found, *bounds)

    tokens = np.full(n, t) if lengths is None else lengths
    kept = torch.from_numpy(np.arange(t) < np.asarray(tokens)[:, None])[..., None]
    rows = dense(*(torch.where(kept, f.double(), 0.0).numpy() for f in (x, d)))
    assert_within(kernels.project(torch.from_numpy(rows), width=p, **same, **plan), exact, allowed)

    w = values(2, 1, dim, 2)[:, 0].float()
    lifted = kernels.lift(w, p * q, name=name, seed=seed, width=p, **same)
    del same["backend"]
    ideal = reference_lift(w.double().numpy(), p * q, name=name, seed=seed, width=p, **same)
    # |P| is at most 6.7 (normals of a 32-bit uniform): dim products and 5 roundings, as in test_lift.
    largest = 6.7 * np.abs(w.double().numpy()).sum(1, keepdims=True) / np.sqrt(dim)
    assert (abs(lifted.numpy() - ideal) <= (dim + 5) * 2.0**-24 * largest).all()


@pytest.mark.parametrize("backend", ["cpu", "lanes"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 70)),
    dim=st.integers(1, 140),
    distribution=st.sampled_from(DISTRIBUTIONS[:2]),
    data=st.data(),
)
def test_any_look_ups(backend: str, shape: tuple[int, int, int], dim: int, distribution: str, data) -> None:
    """The sum over rows r of the sketch of the tokens that looked r up, r lines into the parameter."""
    n, t, width = shape
    rows = torch.tensor(data.draw(st.lists(st.integers(-1, 6), min_size=n * t, max_size=n * t))).reshape(n, t)
    values, plan = random(*shape), {**PLAN, "dim": dim, "distribution": distribution}
    expected = torch.zeros(n, dim)
    for row in range(7):
        hits = (rows == row).float()[:, :, None]
        kernels.sketch(values, hits, offset=row * width, out=expected, backend="cpu", **plan)
    found = kernels.sketch_rows(values, rows, backend=backend, **plan)
    assert (found - expected).norm() <= 2e-5 * expected.norm()
