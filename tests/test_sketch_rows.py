"""Sketches of parameters that are looked up by rows: what `sketch` gives with one-hot output gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Place
from distributions import DISTRIBUTIONS, exact_and_allowed
from exact_sketch import PLAN, assert_within, random

from gradex_fast import kernels

pytestmark = pytest.mark.usefixtures("poisoned_memory")
SHAPES = [(1, 1, 1), (5, 17, 1), (3, 9, 5), (5, 4, 17), (17, 5, 64), (2, 33, 101), (140, 3, 16)]


def looked_up(n: int, t: int, vocabulary: int) -> torch.Tensor:
    """Rows with repeats within a sample and between samples; a fifth of the tokens look nothing up."""
    draw = np.random.default_rng([n, t, vocabulary])
    rows = draw.integers(0, vocabulary, (n, t))
    return torch.from_numpy(np.where(draw.random((n, t)) < 0.2, -1, rows))


def one_hot(rows: torch.Tensor, vocabulary: int) -> torch.Tensor:
    return (rows[:, :, None] == torch.arange(vocabulary)).float()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(("n", "t", "w"), SHAPES)
def test_equals_one_hot_gradients(place: Place, n: int, t: int, w: int, distribution: str) -> None:
    values, rows = random(n, t, w), looked_up(n, t, 23)
    plan = {**PLAN, "dim": 17, "distribution": distribution}
    exact, allowed = exact_and_allowed(values, one_hot(rows, 23), **plan)
    got = kernels.sketch_rows(values.to(place.device), rows.to(place.device), backend=place.backend, **plan)
    assert_within(got, exact, 2 * allowed)  # where the exact way adds all rows at once, TensorSketch adds one by one


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_type_and_strides(place: Place, dtype: torch.dtype) -> None:
    values, rows = random(9, 5, 34, dtype=dtype).transpose(0, 1)[..., ::2], looked_up(9, 5, 7).T
    assert not values.is_contiguous()
    exact, allowed = exact_and_allowed(values, one_hot(rows, 7), "gaussian", dim=5, **PLAN)
    got = kernels.sketch_rows(values.to(place.device), rows.to(place.device), dim=5, backend=place.backend, **PLAN)
    assert_within(got, exact, allowed)


def test_rows_far_apart(compiled: Place) -> None:
    """Elements past 2³² in the same tile as the first: 64 columns of rows 0 and 2³⁰."""
    values = random(2, 3, 64).to(compiled.device)
    rows = torch.tensor([[0, 2**30, 5], [2**30, 0, 2**30]], device=compiled.device)
    got = kernels.sketch_rows(values, rows, dim=8, backend=compiled.backend, **PLAN)
    expected = torch.zeros_like(got)
    for row in (0, 5, 2**30):
        hits = (rows == row).float()[:, :, None]
        kernels.sketch(values, hits, dim=8, offset=row * 64, out=expected, backend=compiled.backend, **PLAN)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_nothing_looked_up(place: Place) -> None:
    for values, rows in ((random(3, 2, 4), torch.full((3, 2), -1)), (random(3, 0, 4), torch.zeros(3, 0, dtype=int))):
        got = kernels.sketch_rows(values.to(place.device), rows.to(place.device), dim=5, backend=place.backend, **PLAN)
        assert torch.equal(got.cpu(), torch.zeros(3, 5))


def test_adds_to_its_output_and_keeps_its_bits(cpu: Place) -> None:
    values, rows = random(5, 40, 100), looked_up(5, 40, 30)
    whole = kernels.sketch_rows(values, rows, dim=9, threads=1, **PLAN)
    for threads in (2, 3, 7):
        assert torch.equal(kernels.sketch_rows(values, rows, dim=9, threads=threads, **PLAN), whole)
    out = whole.clone()
    assert kernels.sketch_rows(values, rows, dim=9, out=out, **PLAN) is out
    assert torch.equal(out, 2 * whole)
    alone = torch.cat([kernels.sketch_rows(v[None], r[None], dim=9, **PLAN) for v, r in zip(values, rows, strict=True)])
    torch.testing.assert_close(alone, whole, rtol=1e-4, atol=1e-4)  # a sample alone has other tiles, so other sums


def test_bad_arguments_are_named() -> None:
    values = random(2, 3, 4)
    for rows in (torch.zeros(2, 2, dtype=int), torch.zeros(2, 3), torch.zeros(2, 3, 1, dtype=int)):
        with pytest.raises(ValueError, match=r"values \[n, t, w\] and rows \[n, t\] do not fit: .*\[2, 3, 4\]"):
            kernels.sketch_rows(values, rows, dim=5, **PLAN)
