"""P is what its definition says: the same bits everywhere, normal, independent."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
import torch
from conftest import Place

from gradex_fast import kernels, native
from gradex_fast.reference.gaussian import fma, key, philox, projection, round_to_bfloat16
from gradex_fast.reference.projection import projection as any_projection

FAR = 2**33 + 12_345
# Random123's kat_vectors for philox4x32-10: counter, key (its two words, low first), words.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
reference = cache(any_projection)


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def native_projection(name: str, seed: int, size: int, dim: int, offset: int = 0) -> np.ndarray:
    """P [size, dim] out of the compiled kernel; exact, since dim is a power of 4 and so √dim a power of 2."""
    identity = np.eye(dim, dtype=np.float32)
    return kernels.lift(identity, size, name=name, seed=seed, offset=offset).T.astype(np.float64) * np.sqrt(dim)


def standard_errors(values: np.ndarray, expected: float) -> float:
    """How many standard errors the mean of independent values lies from what it should be."""
    return abs(values.mean() - expected) / (values.std() / np.sqrt(values.size))


@pytest.mark.parametrize(("counter", "key_words", "expected"), KNOWN_ANSWERS)
def test_philox_known_answers(counter: str, key_words: str, expected: str) -> None:
    low, high = words(key_words)
    assert philox(np.array(words(counter), np.uint32), low | high << 32).tolist() == words(expected)
    assert native.philox(words(counter), low | high << 32) == words(expected)


def test_philox_agrees_on_random_counters() -> None:
    counters = np.random.default_rng(0).integers(0, 2**32, (1000, 4), dtype=np.uint32)
    keys = np.random.default_rng(1).integers(0, 2**64, 1000, dtype=np.uint64)
    for counter, word in zip(counters, keys.tolist(), strict=True):
        assert native.philox(counter.tolist(), word) == philox(counter, word).tolist()


def test_definition_is_frozen() -> None:
    assert key("w", 0) == 0x18C3DCF773EBF5DD
    expected = [[0.59375, 0.67578125, -1.28125, -0.83984375], [0.875, -1.3203125, -0.609375, -0.34375]]
    assert projection("w", 0, 2, 4).tolist() == expected


@pytest.mark.parametrize("offset", [0, 2**32 - 7, FAR, 2**63])
@pytest.mark.parametrize(("size", "dim"), [(1, 1), (5, 4), (17, 16), (101, 256), (10_000, 64)])
@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_every_instruction_set_gives_the_same_bits(
    compiled: Place, distribution: str, size: int, dim: int, offset: int
) -> None:
    plan = {"name": "w", "seed": 3, "offset": offset, "distribution": distribution}
    lifted = kernels.lift(torch.eye(dim, device=compiled.device), size, backend=compiled.backend, **plan)
    expected = reference(size=size, dim=dim, **plan)
    np.testing.assert_array_equal(lifted.T.cpu().double() * dim**0.5, expected)


@pytest.mark.parametrize(("j", "column"), [(4_342_974, 0), (19_276_499, 2)])
def test_ends_of_the_logarithm(compiled: Place, j: int, column: int) -> None:
    """Two elements whose u is the least there is, 2⁻²⁵, and the greatest, 1 after rounding to float32."""
    exact = projection("w", 0, 1, 4, offset=j)
    radius = np.hypot(exact[0, column], exact[0, column + 1])
    assert radius == pytest.approx(np.sqrt(-2 * np.log(2.0**-25)) if column == 0 else 0.0, rel=2**-8)
    lifted = kernels.lift(torch.eye(4, device=compiled.device), 1, name="w", seed=0, offset=j)
    np.testing.assert_array_equal(lifted.T.cpu().double() * 2, exact)


def test_more_columns_keep_the_old_ones() -> None:
    few, many = native_projection("w", 3, 101, 16, FAR), native_projection("w", 3, 101, 256, FAR)
    np.testing.assert_array_equal(few, many[:, :16])
    np.testing.assert_array_equal(projection("w", 3, 101, 17, FAR), many[:, :17])


def test_is_box_muller_rounded_to_bfloat16() -> None:
    size, quads = 4_000, 64
    counter = np.zeros((size, quads, 4), np.uint32)
    counter[..., 0], counter[..., 2] = np.arange(size)[:, None], np.arange(quads)
    drawn = philox(counter, key("w", 3)).astype(np.float64)
    u = ((np.floor(drawn[..., ::2] / 2**8) + 0.5) / 2**24).astype(np.float32).astype(np.float64)
    angle = 2 * np.pi * drawn[..., 1::2] / 2**32
    normal = np.sqrt(-2 * np.log(u))[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    mantissa, exponent = np.frexp(normal.reshape(size, 4 * quads))
    rounded = np.ldexp(np.rint(np.ldexp(mantissa, 8)), exponent - 8)  # bfloat16 has 8 significant bits
    got = native_projection("w", 3, size, 4 * quads)
    assert (np.abs(got - rounded) <= np.ldexp(1.0, exponent - 8)).all()
    # The float32 formulas err by about 4e-7 of the value (at most 2.4e-6), and a bfloat16 step is 1/256 to 1/128 of it:
    # about 4e-7 * 256 = 1e-4 of the entries lie so near the middle of a step. Measured: 1.1e-4.
    assert (got != rounded).mean() < 2e-4


def test_moments_of_ten_million() -> None:
    p = native_projection("w", 3, 40_000, 256)
    for power, moment in enumerate([0.0, 1.0, 0.0, 3.0], start=1):
        assert standard_errors(p**power, moment) < 4, f"moment {power} of a standard normal is {moment}"
    for a, b in [(0, 1), (0, 2), (1, 3), (2, 3), (0, 4), (3, 4), (7, 200)]:
        assert standard_errors(p[:, a] * p[:, b], 0.0) < 4, f"columns {a} and {b} are correlated"
        assert standard_errors(p[:, a] ** 2 * p[:, b] ** 2, 1.0) < 4, f"sizes in columns {a} and {b} are correlated"
    assert standard_errors(p[:-1] * p[1:], 0.0) < 4, "neighbouring elements are correlated"


@pytest.mark.parametrize("other", [("v", 3), ("w", 4), ("w", -3), ("w.", 3)])
def test_names_and_seeds_are_independent(other: tuple[str, int]) -> None:
    p, q = native_projection("w", 3, 40_000, 16), native_projection(*other, 40_000, 16)
    assert standard_errors(p * q, 0.0) < 4
    assert standard_errors(p**2 * q**2, 1.0) < 4


def test_round_to_bfloat16_is_torch_s() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    bits[::2] = bits[::2] & 0xFFFF0000 | 0x8000  # ties
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(round_to_bfloat16(values), expected)


def nearest_float32(exact: Fraction) -> np.float32:
    """The float32 next to a rational; of two equally near, the one with an even mantissa."""
    guess = np.float32(float(exact))
    around = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    return min(around, key=lambda value: (abs(exact - Fraction(float(value))), int(value.view(np.uint32)) & 1))


def test_fma_rounds_once() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (np.ldexp(rng.standard_normal(3000), rng.integers(-20, 20, 3000)).astype(np.float32) for _ in range(3))
    c[::3] = -(a * b)[::3]  # cancellation: what is left is the product's rounding error
    # Exactly 1 + 1.5 ulp - 2⁻⁶⁰: through float64 it becomes a tie and goes up.
    a[0], b[0], c[0] = 2.0**-24 * (1 + 2.0**-18), 1 - 2.0**-18, 1 + 2.0**-23
    exact = [
        Fraction(x) * Fraction(y) + Fraction(z) for x, y, z in zip(a.tolist(), b.tolist(), c.tolist(), strict=True)
    ]
    np.testing.assert_array_equal(fma(a, b, c), [nearest_float32(value) for value in exact])
