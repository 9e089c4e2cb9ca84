"""TensorSketch is the convolution of two CountSketches, in every shape and type, and project and lift belong to it."""

from __future__ import annotations

import itertools

import defaults
import numpy as np
import pytest
import torch
from conftest import Place
from distributions import exact_and_allowed
from exact_sketch import PLAN, UNIT, assert_within, dense, random
from test_gaussian import FAR, standard_errors

from gradex_fast import kernels, tensorsketch
from gradex_fast.reference.gaussian import key
from gradex_fast.reference.lift import lift as reference_lift
from gradex_fast.reference.sketch import sketch as reference_sketch
from gradex_fast.reference.tensorsketch import INPUTS, OUTPUTS, hashes, projection

pytestmark = pytest.mark.usefixtures("poisoned_memory")
TENSOR = {"distribution": "tensorsketch", **PLAN}
TYPES = list(itertools.product((torch.float32, torch.bfloat16, torch.float16, torch.float64), repeat=2))
DIMS = (1, 2, 3, 16, 17, 100, 101)


def assert_tensorsketch(got, x, d, **plan) -> None:
    assert_within(got, *exact_and_allowed(x, d, "tensorsketch", **PLAN, **plan))


def test_hashes_are_frozen() -> None:
    """philox((3, 0, 0, 2 or 3), key("w", 0)) starts with the words 40222961 ac50c037 and 32a5c23a 606cfab3."""
    for side, x, y in [(INPUTS, 0x40222961, 0xAC50C037), (OUTPUTS, 0x32A5C23A, 0x606CFAB3)]:
        for dim in (1, 100, 2**31 - 1):
            bucket, sign = hashes(key("w", 0), side, 3, 1, dim)
            assert (bucket.item(), sign.item()) == (x * dim >> 32, -1.0 if y & 1 else 1.0)


@pytest.mark.parametrize("start", [0, 2**32 - 5_000, FAR])
def test_hashes_are_uniform_and_independent(start: int) -> None:
    count, dim = 100_000, 100
    (h_in, s_in), (h_out, s_out) = (hashes(key("w", 3), side, start, count, dim) for side in (INPUTS, OUTPUTS))
    for bucket, sign in [(h_in, s_in), (h_out, s_out)]:
        deviation = (np.bincount(bucket, minlength=dim) - count / dim) / np.sqrt(count / dim * (1 - 1 / dim))
        assert abs(deviation).max() < 5  # 100 normals: one in 17,000 runs goes beyond, and this run is always the same
        assert standard_errors(sign, 0.0) < 4
        assert standard_errors(sign * bucket, 0.0) < 4, "sign and bucket hang together"
        assert standard_errors(sign[1:] * sign[:-1], 0.0) < 4
        assert standard_errors((bucket[1:] == bucket[:-1]).astype(float), 1 / dim) < 4
    assert standard_errors(s_in * s_out, 0.0) < 4 and standard_errors((h_in == h_out).astype(float), 1 / dim) < 4


def test_reference_is_the_definition() -> None:
    """Σ_t of the circular convolution of CountSketches, written out."""
    x, d, dim = random(3, 4, 5).double().numpy(), random(3, 4, 7).double().numpy(), 6
    (h_in, s_in), (h_out, s_out) = hashes(key(**PLAN), INPUTS, 0, 5, dim), hashes(key(**PLAN), OUTPUTS, 2, 7, dim)
    exact = np.zeros((3, dim))
    for i, t in np.ndindex(3, 4):
        a, b = np.zeros(dim), np.zeros(dim)
        np.add.at(a, h_in, s_in * x[i, t])
        np.add.at(b, h_out, s_out * d[i, t])
        for k, m in np.ndindex(dim, dim):
            exact[i, (k + m) % dim] += a[k] * b[m]
    np.testing.assert_allclose(reference_sketch(x, d, dim=dim, offset=10, **TENSOR), exact, rtol=1e-12)


def test_one_sign_a_row() -> None:
    matrix = projection("w", 3, 6 * 5, 4, offset=3, width=5)
    assert (abs(matrix).sum(1) == 1).all() and set(np.unique(matrix)) == {-1.0, 0.0, 1.0}
    np.testing.assert_array_equal(matrix, projection("w", 3, 40, 4, width=5)[3:33])


@pytest.mark.parametrize("dim", DIMS)
def test_every_shape(place: Place, dim: int) -> None:
    for n, t, p, q in itertools.product((0, 1, 5), (0, 1, 7), (1, 4, 65), (1, 5, 64)):
        x, d = random(n, t, p).to(place.device), random(n, t, q).to(place.device)
        got = kernels.sketch(x, d, dim=dim, offset=2 * p, backend=place.backend, **TENSOR)
        assert_tensorsketch(got, x, d, dim=dim, offset=2 * p)


@pytest.mark.parametrize("dim", [*DIMS, 512, 1021])
def test_error_is_that_of_float32(dim: int) -> None:
    """The bound by norms is far away where hundreds of tokens add up. The error itself was 2 to 10 UNIT."""
    for shape in [(20, 300, 101, 64), (20, 3, 17, 9), (20, 5, 700, 300)]:
        x, d = random(*shape[:3]), random(*shape[:2], shape[3])
        exact, _ = exact_and_allowed(x, d, "tensorsketch", dim=dim, **PLAN)
        got = kernels.sketch(x, d, dim=dim, **TENSOR).double().numpy()
        assert np.linalg.norm(got - exact) <= 20 * UNIT * np.linalg.norm(exact), shape


@pytest.mark.parametrize(("x_type", "d_type"), TYPES)
def test_every_type(x_type: torch.dtype, d_type: torch.dtype) -> None:
    x, d = random(5, 17, 65, dtype=x_type), random(5, 17, 37, dtype=d_type)
    assert_tensorsketch(kernels.sketch(x, d, dim=17, **TENSOR), x, d, dim=17)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_tokens_past_the_length_do_not_count(place: Place, kind: type) -> None:
    lengths = [0, 1, 3, 16, 17]
    x, d = random(5, 17, 21), random(5, 17, 13)
    for i, length in enumerate(lengths):
        x[i, length:], d[i, length:] = float("nan"), float("inf")
    x, d = x.to(place.device), d.to(place.device)
    got = kernels.sketch(x, d, dim=17, lengths=kind(lengths), backend=place.backend, **TENSOR)
    assert_tensorsketch(got, x, d, dim=17, lengths=lengths)


def test_strided_inputs() -> None:
    base = random(17, 10, 34)
    for x in (
        base.transpose(0, 1),
        base[::2, :, ::2],
        base[:, 3:4].expand(17, 9, 34),
        base[..., 5:6].expand(17, 10, 8),
    ):
        d = random(*x.shape[:2], 40)[..., 1::3]
        assert_tensorsketch(kernels.sketch(x, d, dim=17, **TENSOR), x, d, dim=17)


def test_blocks_of_hashes_and_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    x, d, w = random(5, 3, 40), random(5, 3, 2100), random(2, 17)
    rows, plan = torch.from_numpy(dense(x.double().numpy(), d.double().numpy())), {"offset": 1000 * 40, **TENSOR}

    def everything() -> tuple[torch.Tensor, ...]:
        projected = kernels.project(rows, dim=17, width=40, **plan)
        return kernels.sketch(x, d, dim=17, **plan), projected, kernels.lift(w, 2100 * 40, width=40, **plan)

    whole = everything()
    assert_tensorsketch(whole[0], x, d, dim=17, offset=1000 * 40)
    monkeypatch.setattr(tensorsketch, "_NUMBERS", 5000)
    for got, expected in zip(everything(), whole, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(everything()[2], whole[2])


def test_hashes_kept_are_few() -> None:
    assert tensorsketch._block.cache_info().maxsize * tensorsketch._BLOCK * 5 <= 100 << 20  # int32 and int8


def test_out_is_added_to(place: Place) -> None:
    x, d, start = random(5, 3, 17), random(5, 3, 9), random(5, 5)
    out = start.to(place.device, copy=True)
    plan = {"dim": 5, "backend": place.backend, **TENSOR}
    assert kernels.sketch(x.to(place.device), d.to(place.device), out=out, **plan) is out
    exact, allowed = exact_and_allowed(x, d, "tensorsketch", dim=5, **PLAN)
    exact += start.double().numpy()
    assert_within(out, exact, allowed + UNIT * abs(exact))


def test_project_is_the_sketch_of_dense_gradients(place: Place) -> None:
    x, d = random(5, 17, 21), random(5, 17, 13)
    rows = torch.from_numpy(dense(x.double().numpy(), d.double().numpy())).to(place.device)
    plan = {"dim": 17, "backend": place.backend, **TENSOR}
    assert_tensorsketch(kernels.project(rows, width=21, **plan), x, d, dim=17)
    out = kernels.project(rows[:, :84], width=21, **plan)
    assert kernels.project(rows[:, 84:], width=21, offset=84, out=out, **plan) is out
    assert_tensorsketch(out, x, d, dim=17)


def test_a_row_is_one_line_unless_told_otherwise(place: Place) -> None:
    rows, ones = random(5, 33).to(place.device), torch.ones(5, 1, 1, device=place.device)
    plan = {"dim": 7, "backend": place.backend, **TENSOR}
    assert_tensorsketch(kernels.project(rows, **plan), rows[:, None], ones, dim=7)
    assert_tensorsketch(kernels.project(rows, offset=66, **plan), rows[:, None], ones, dim=7, offset=66)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("offset", [0, 17 * 3, 17 * 2**32])
def test_lift_looks_up(place: Place, dim: int, offset: int) -> None:
    """Every element is one weight or its negative: no rounding beyond that of the weights to float32."""
    for m, lines in itertools.product((0, 1, 5), (0, 1, 60)):
        w = random(m, dim)
        got = kernels.lift(w.to(place.device), 17 * lines, width=17, offset=offset, backend=place.backend, **TENSOR)
        exact = reference_lift(w.double().numpy(), 17 * lines, width=17, offset=offset, **TENSOR)
        assert got.dtype == torch.float32
        np.testing.assert_array_equal(got.cpu().numpy(), exact)


def test_numpy_and_torch_defaults(cpu: Place) -> None:
    x, d = random(5, 3, 17), random(5, 3, 9)
    expected = kernels.sketch(x, d, dim=5, **TENSOR), kernels.lift(x[0], 20, **TENSOR)
    assert np.array_equal(kernels.sketch(x.numpy(), d.numpy(), dim=5, **TENSOR), expected[0].numpy())
    assert np.array_equal(kernels.lift(x[0].numpy(), 20, **TENSOR), expected[1].numpy())
    assert isinstance(kernels.project(x[0].numpy(), dim=5, **TENSOR), np.ndarray)
    defaults.check(TENSOR)


@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: kernels.sketch(random(2, 3, 4), random(2, 3, 5), dim=8, offset=6, **o), "offset .* 4 .* got 6"),
        (lambda o: kernels.project(random(2, 12), dim=8, width=4, offset=6, **o), "offset .* 4 elements .* got 6"),
        (lambda o: kernels.project(random(2, 10), dim=8, width=4, **o), "size must be whole lines of 4 .* got 10"),
        (lambda o: kernels.project(random(2, 12), dim=8, offset=6, **o), "offset .* 12 elements .* got 6"),
        (lambda o: kernels.project(random(2, 12), dim=8, width=0, **o), "width must be 1 or more, got 0"),
        (lambda o: kernels.project(random(2, 12), dim=0, **o), "dim must be 1 or more, got 0"),
        (lambda o: kernels.project(random(2, 12), dim=8, out=torch.zeros(2, 9), **o), "out must be contiguous float32"),
        (lambda o: kernels.lift(random(2, 8), 10, width=4, **o), "size must be whole lines of 4 .* got 10"),
        (lambda o: kernels.lift(random(2, 8), 12, width=4, offset=2, **o), "offset .* 4 elements .* got 2"),
    ],
)
def test_what_is_not_whole_lines_is_refused(call, message: str, backend: str | None) -> None:
    with pytest.raises(ValueError, match=message):
        call({"backend": backend, **TENSOR})
