"""The sketch is Pᵀ∇ to within float32 rounding, for every backend, shape, type and layout."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
import torch
from conftest import Place
from exact_sketch import MATRIX_UNIT, PLAN, assert_sketch, assert_within, dense, exact_sketch, normals, random

from gradex_fast import kernels, native
from gradex_fast.reference.gaussian import projection
from gradex_fast.reference.sketch import sketch as reference_sketch

pytestmark = pytest.mark.usefixtures("poisoned_memory")
FEATURES = (1, 4, 5, 17, 64, 101)
COUNTS = [*itertools.product((0, 1, 5, 17), (0, 1, 5, 17), (17,)), *itertools.product((1, 17), (5,), (1, 3, 5, 101))]
TYPES = list(itertools.product((torch.float32, torch.bfloat16, torch.float16, torch.float64), repeat=2))


@cache
def case(
    n: int, t: int, p: int, q: int, dim: int, arithmetic: tuple[str, bool]
) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """The same case for the same shape; what rounding may do depends on the arithmetic."""
    x, d = random(n, t, p), random(n, t, q)
    return x, d, *exact_sketch(x, d, dim=dim)


def test_reference_is_the_definition() -> None:
    x, d = random(5, 3, 4), random(5, 3, 17)
    p = projection(size=17 * 4, dim=101, offset=9, **PLAN)
    exact = np.zeros((5, 101))
    for i, t, o, c in np.ndindex(5, 3, 17, 4):
        exact[i] += d[i, t, o].item() * x[i, t, c].item() * p[o * 4 + c] / np.sqrt(101)
    got = reference_sketch(x.numpy(), d.numpy(), dim=101, offset=9, **PLAN)
    np.testing.assert_allclose(got, exact, rtol=1e-11)


@pytest.mark.parametrize("q", FEATURES)
@pytest.mark.parametrize("p", FEATURES)
def test_every_shape(place: Place, p: int, q: int) -> None:
    for n, t, dim in COUNTS if place.backend != "reference" else [(5, 17, 17), (0, 5, 5), (5, 0, 5)]:
        x, d, exact, allowed = case(n, t, p, q, dim, (native.instruction_set(), MATRIX_UNIT.get()))
        got = kernels.sketch(x.to(place.device), d.to(place.device), dim=dim, backend=place.backend, **PLAN)
        assert_within(got, exact, allowed)


@pytest.mark.parametrize(("p", "q"), [(1001, 40), (40, 1001), (1, 40_040), (40_040, 1)])
def test_many_tiles_in_a_chunk(compiled: Place, p: int, q: int) -> None:
    x, d = random(5, 3, p).to(compiled.device), random(5, 3, q).to(compiled.device)
    assert_sketch(kernels.sketch(x, d, dim=33, backend=compiled.backend, **PLAN), x, d, dim=33)


def test_thousands_of_columns(place: Place) -> None:
    """d = 4,096: columns are those of any smaller d but for the scale, and the sketch keeps the norm."""
    x, d = random(5, 3, 17).to(place.device), random(5, 3, 9).to(place.device)
    wide = kernels.sketch(x, d, dim=4096, backend=place.backend, **PLAN)
    assert_sketch(8 * wide[:, :64], x, d, dim=64)
    lengths = torch.einsum("nto,ntc->noc", d, x).flatten(1).norm(dim=1)
    assert (wide.norm(dim=1) / lengths - 1).abs().max() < 4 / (2 * 4096) ** 0.5


@pytest.mark.parametrize(("x_type", "d_type"), TYPES)
def test_every_type(place: Place, x_type: torch.dtype, d_type: torch.dtype) -> None:
    x, d = random(5, 17, 65, dtype=x_type).to(place.device), random(5, 17, 37, dtype=d_type).to(place.device)
    assert_sketch(kernels.sketch(x, d, dim=17, backend=place.backend, **PLAN), x, d, dim=17)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_number(compiled: Place, dtype: torch.dtype) -> None:
    """All 65,536, subnormals, infinities and NaN among them, as inputs and as output gradients.

    The matrix unit reads a number in two parts, and those of infinity are no longer one.
    """
    values = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype).to(compiled.device)[:, None, None]
    ones = torch.ones(2**16, 1, 1, device=compiled.device)
    with np.errstate(invalid="ignore"):
        expected = values[:, 0].cpu().float().numpy() * normals(0, 101 * 101)[0, :1].astype(np.float32)
    for x, d in [(values, ones), (ones, values)]:
        got = kernels.sketch(x, d, dim=1, backend=compiled.backend, **PLAN).cpu().numpy()
        kept = np.isfinite(expected) if MATRIX_UNIT.get() else np.full(expected.shape, True)
        np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
        np.testing.assert_array_equal(got[kept], expected[kept])


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_tokens_past_the_length_are_not_read(place: Place, kind: type) -> None:
    lengths = [0, 1, 3, 16, 17]
    x, d = random(5, 17, 21), random(5, 17, 13)
    for i, length in enumerate(lengths):
        x[i, length:] = d[i, length:] = float("nan")
    x, d = x.to(place.device), d.to(place.device)
    got = kernels.sketch(x, d, dim=17, lengths=kind(lengths), backend=place.backend, **PLAN)
    assert_sketch(got, x, d, dim=17, lengths=lengths)


def test_strided_inputs(place: Place) -> None:
    base = random(17, 10, 34).to(place.device)
    for x in (
        base.transpose(0, 1),
        base[::2, :, ::2],
        base[:, 3:4].expand(17, 9, 34),
        base[..., 5:6].expand(17, 10, 8),
    ):
        d = random(*x.shape[:2], 40).to(place.device)[..., 1::3]
        assert not x.is_contiguous() and not d.is_contiguous()
        assert_sketch(kernels.sketch(x, d, dim=17, backend=place.backend, **PLAN), x, d, dim=17)


@pytest.mark.parametrize("offset", [5, 2**32 - 40, 2**33 + 3])
def test_offset_counts_elements(place: Place, offset: int) -> None:
    x, d = random(5, 3, 17).to(place.device), random(5, 3, 9).to(place.device)
    got = kernels.sketch(x, d, dim=5, offset=offset, backend=place.backend, **PLAN)
    assert_sketch(got, x, d, dim=5, offset=offset)


def test_project_is_the_sketch_of_dense_gradients(place: Place) -> None:
    x, d = random(5, 17, 21), random(5, 17, 13)
    rows = torch.from_numpy(dense(x.double().numpy(), d.double().numpy())).to(place.device)
    plan = {"dim": 17, "backend": place.backend, **PLAN}
    assert_sketch(kernels.project(rows, **plan), x, d, dim=17)
    # Parameters cut anywhere: P's rows go on from the offset.
    out = kernels.project(rows[:, :100], **plan)
    assert kernels.project(rows[:, 100:], offset=100, out=out, **plan) is out
    assert_sketch(out, x, d, dim=17)


def test_inner_products_are_unbiased(place: Place) -> None:
    """⟨sketch(a), sketch(b)⟩ = ⟨a, b⟩ on average, with variance (|a|²|b|² + ⟨a, b⟩²) / dim."""
    seeds, dim = 4000, 16
    x, d = random(2, 3, 5).to(place.device), random(2, 3, 4).to(place.device)
    (a, b) = dense(x.double().cpu().numpy(), d.double().cpu().numpy())
    plan = {"name": "w", "dim": dim, "backend": place.backend}
    sketches = torch.stack([kernels.sketch(x, d, seed=seed, **plan) for seed in range(seeds)]).double().cpu()
    for u, v, i, j in [(a, b, 0, 1), (a, a, 0, 0)]:
        products = (sketches[:, i] * sketches[:, j]).sum(dim=1).numpy()
        mean, variance = products.mean(), (u @ u * (v @ v) + (u @ v) ** 2) / dim
        assert abs(mean - u @ v) < 4 * np.sqrt(variance / seeds), (
            f"mean {mean:.3f} for {u @ v:.3f}. A factor of {dim} or 1/{dim}: the scale 1/√dim is missing or squared; "
            "any other factor: P's variance is not 1; another number: inputs and gradients are paired wrongly"
        )
        squares = (products - u @ v) ** 2
        assert abs(squares.mean() - variance) < 4 * squares.std() / np.sqrt(seeds), (
            f"variance {squares.mean():.3f} for {variance:.3f}. Too large: columns of P are correlated or too few; "
            "too small: P's tails are cut, or seeds repeat"
        )
