"""The lift is the sketch's adjoint, P w, to within float32 rounding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from conftest import Place
from exact_sketch import PLAN, UNIT, allowed, dense, normals, random

from gradex_fast import kernels, native
from gradex_fast.reference.gaussian import key as philox_key
from gradex_fast.reference.lift import lift as reference_lift
from gradex_fast.reference.sketch import project as reference_project

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def assert_lift(got: torch.Tensor, w: torch.Tensor, size: int, offset: int = 0) -> None:
    """|got - exact| ≤ (dim + 5) · UNIT · |w| |P|ᵀ / √dim: a sum of dim products, the scale, the rounding of w."""
    w, dim = w.double().cpu().numpy(), w.shape[1]
    p = normals(offset, 101 * 101)[:size, :dim] / np.sqrt(dim)
    assert got.dtype == torch.float32 and got.shape == (len(w), size)
    bound = (dim + 5) * UNIT * (abs(w) @ abs(p).T)
    assert (abs(got.cpu().numpy() - w @ p.T) <= bound).all(), f"m, dim = {w.shape}, {size = }"


def test_reference_is_the_definition() -> None:
    w, p = random(3, 17).double().numpy(), normals(5, 101 * 101)
    exact = [[sum(w[m, k] * p[j, k] for k in range(17)) / 17**0.5 for j in range(9)] for m in range(3)]
    np.testing.assert_allclose(reference_lift(w, 9, offset=5, **PLAN), exact, rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 3, 4, 5, 17, 32, 33, 101])
@pytest.mark.parametrize("offset", [0, 3, 2**32 - 40, 2**33 + 3])
def test_every_shape(place: Place, dim: int, offset: int) -> None:
    for m, size in itertools.product((0, 1, 5), (0, 1, 5, 17, 255, 256, 257, 1001)):
        w = random(m, dim).to(place.device)
        assert_lift(kernels.lift(w, size, offset=offset, backend=place.backend, **PLAN), w, size, offset)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_types_and_strides(place: Place, dtype: torch.dtype) -> None:
    for w in (random(17, 5, dtype=dtype).T, random(5, 34, dtype=dtype)[:, ::2]):
        got = kernels.lift(w.to(place.device), 100, backend=place.backend, **PLAN)
        assert_lift(got, w, 100)


def test_overwrites_its_output(compiled: Place) -> None:
    out, w = torch.full((3, 1001), float("nan"), device=compiled.device), random(3, 37).to(compiled.device)
    plan = {"key": philox_key(**PLAN), "offset": 0, "scale": 37**-0.5, "distribution": "gaussian", "threads": 2}
    native.lift(out, w, **plan)
    assert_lift(out, w, 1001)


def test_bits_do_not_depend_on_threads_or_cuts(compiled: Place) -> None:
    w = random(5, 37).to(compiled.device)
    whole = kernels.lift(w, 3001, threads=1, **PLAN)
    for threads in (2, 3, 7):
        assert torch.equal(kernels.lift(w, 3001, threads=threads, **PLAN), whole), f"{threads} threads"
    parts = [kernels.lift(w, size, offset=offset, **PLAN) for offset, size in [(0, 7), (7, 1000), (1007, 1994)]]
    assert torch.equal(torch.cat(parts, dim=1), whole)
    assert torch.equal(torch.cat([kernels.lift(row[None], 3001, **PLAN) for row in w]), whole)


def test_reference_adjointness() -> None:
    rows, w = random(7, 1001).double().numpy(), random(5, 101).double().numpy()
    projected = reference_project(rows, dim=101, offset=11, **PLAN)
    np.testing.assert_allclose(projected @ w.T, rows @ reference_lift(w, 1001, offset=11, **PLAN).T, rtol=1e-10)


@pytest.mark.parametrize(("p", "q", "dim"), [(1, 1, 1), (17, 5, 3), (64, 101, 17), (101, 64, 101)])
def test_adjointness(place: Place, p: int, q: int, dim: int) -> None:
    """⟨sketch(x, d), w⟩ = ⟨Σ d ⊗ x, lift(w)⟩."""
    x, d, w = random(5, 3, p), random(5, 3, q), random(3, dim)
    sketched = kernels.sketch(x.to(place.device), d.to(place.device), dim=dim, backend=place.backend, **PLAN)
    lifted = kernels.lift(w.to(place.device), p * q, backend=place.backend, **PLAN)
    x, d, w = x.double().numpy(), d.double().numpy(), w.double().numpy()
    left = sketched.cpu().double().numpy() @ w.T
    right = dense(x, d) @ lifted.cpu().double().numpy().T
    matrix = abs(normals(0, 101 * 101)[: p * q, :dim]) / np.sqrt(dim)
    largest = dense(abs(x), abs(d)) @ matrix @ abs(w).T
    assert (
        abs(left - right) <= allowed(3 + 42 + dim + 5, largest, right)
    ).all()  # the bounds of sketch and lift, added


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": random(3)}, r"weights must be \[m, dim\], got \(3,\)"),
        ({"weights": random(3, 0)}, "dim must be 1 or more"),
        ({"weights": random(3, 4).to("meta"), "backend": "cpu"}, "backend 'cpu' cannot read tensors on meta"),
        ({"size": 5, "offset": 2**64 - 4}, r"offset \+ elements must be at most 2\^64"),
        ({"size": -1}, "size must be 0 or more, got -1"),
        ({"distribution": "cauchy"}, "distribution must be one of"),
        ({"backend": "tpu"}, "backend must be one of"),
        ({"offset": -1}, "offset must be 0 or more"),
        ({"threads": -2}, "threads must be 1 or more"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernels.lift(**{"weights": random(3, 4), "size": 5, **PLAN, **change})
