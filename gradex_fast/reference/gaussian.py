"""The definition of P, element by element: Philox4x32-10, Box–Muller, bfloat16 (DESIGN §2, `csrc/gaussian.h`)."""

from __future__ import annotations

import hashlib

import numpy as np

_MASK = (1 << 64) - 1
_F = np.float32


def _mix(word: int) -> int:
    """The finaliser of SplitMix64: a bijection of 64 bits that spreads every input bit."""
    word = (word + 0x9E3779B97F4A7C15) & _MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)


def key(name: str, seed: int) -> int:
    """Philox's 64-bit key of one parameter: the seed mixed with 8 bytes of BLAKE2b(name)."""
    digest = hashlib.blake2b(name.encode(), digest_size=64).digest()
    return _mix(_mix(seed & _MASK) ^ int.from_bytes(digest[:8], "little"))


def philox(counter: np.ndarray, key: int) -> np.ndarray:
    """Philox4x32-10 (Salmon et al., SC 2011): uint32 [..., 4] counters to uint32 [..., 4] words."""
    x, y, z, w = (counter[..., i].astype(np.uint64) for i in range(4))
    low, weyl = np.uint64(0xFFFFFFFF), (0x9E3779B9, 0xBB67AE85)
    for turn in range(10):
        k0 = np.uint64(((key & 0xFFFFFFFF) + turn * weyl[0]) & 0xFFFFFFFF)
        k1 = np.uint64(((key >> 32) + turn * weyl[1]) & 0xFFFFFFFF)
        product0, product1 = np.uint64(0xD2511F53) * x, np.uint64(0xCD9E8D57) * z
        x, z = (product1 >> np.uint64(32)) ^ y ^ k0, (product0 >> np.uint64(32)) ^ w ^ k1
        y, w = product1 & low, product0 & low
    return np.stack([x, y, z, w], axis=-1).astype(np.uint32)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32 a·b + c with one rounding: the float64 sum is rounded to odd first (Boldo and Melquiond 2008)."""
    product, addend = a.astype(np.float64) * b, np.asarray(c, np.float64)
    total = product + addend
    back = total - product
    error = (product - (total - back)) + (addend - back)
    inexact = (error != 0) & (total.view(np.int64) & 1 == 0)
    towards = np.where(error > 0, np.inf, -np.inf)
    return np.where(inexact, np.nextafter(total, towards), total).astype(_F)


def _horner(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    value = np.full_like(x, _F(coefficients[0]))
    for coefficient in coefficients[1:]:
        value = fma(value, x, _F(coefficient))
    return value


_LOG = (-0.237922187, 0.373357103, -0.409926574, 0.498194883, -0.66629018, 1.00002226, -2.00000195)
_SIN = (0.00243562279, -0.0807247556, 0.78539698)
_COS = (-0.000318727841, 0.0158496842, -0.308424166, 0.999999967)


def _minus_two_log(words: np.ndarray) -> np.ndarray:
    """-2 ln u, u = (⌊word / 2⁸⌋ + ½) / 2²⁴ = 2ᵉ m with m in [1/√2, √2)."""
    u = fma((words >> np.uint32(8)).astype(_F), _F(2.0**-24), _F(2.0**-25))
    shifted = u.view(np.uint32) - np.uint32(0x3F3504F3)
    e = (shifted.view(np.int32) >> 23).astype(_F)
    f = ((shifted & np.uint32(0x7FFFFF)) + np.uint32(0x3F3504F3)).view(_F) - _F(1)
    return fma(e, _F(-1.38629436), f * _horner(_LOG, f))


def _cosine_sine(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2π word / 2³²: a quarter turn k and a remainder y π/4, |y| ≤ 1."""
    k = (words + np.uint32(0x20000000)) >> np.uint32(30)
    y = (words - (k << np.uint32(30))).view(np.int32).astype(_F) * _F(2.0**-29)
    s, c = y * _horner(_SIN, y * y), _horner(_COS, y * y)
    odd = k % 2 == 1
    cosine = np.where(odd, s, c) * np.where((k == 1) | (k == 2), _F(-1), _F(1))
    return cosine, np.where(odd, c, s) * np.where(k >= 2, _F(-1), _F(1))


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 to the nearest bfloat16, ties to even, kept as float32."""
    bits = values.view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)).view(_F)


def projection(name: str, seed: int, size: int, dim: int, offset: int = 0) -> np.ndarray:
    """P [size, dim] for the elements offset ... offset + size - 1 of parameter `name`, as float64."""
    j = np.arange(offset, offset + size, dtype=np.uint64)[:, None]
    quads = -(-dim // 4)
    counter = np.zeros((size, quads, 4), np.uint32)
    counter[..., 0], counter[..., 1] = j & np.uint64(0xFFFFFFFF), j >> np.uint64(32)
    counter[..., 2] = np.arange(quads)
    words = philox(counter, key(name, seed))
    radius = np.sqrt(_minus_two_log(words[..., ::2]))
    cosine, sine = _cosine_sine(words[..., 1::2])
    normals = round_to_bfloat16(np.stack([radius * cosine, radius * sine], axis=-1))
    return normals.reshape(size, 4 * quads)[:, :dim].astype(np.float64)
