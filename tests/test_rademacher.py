"""The reference's P of signs is what its definition says: known bits, fair, independent."""

from __future__ import annotations

import numpy as np
import pytest
from test_gaussian import FAR, standard_errors

from gradex_fast.reference import gaussian
from gradex_fast.reference.projection import projection as any_projection
from gradex_fast.reference.projection import scale
from gradex_fast.reference.rademacher import projection

# philox((j low, j high, k div 128, 1), key("w", 0)), worked out apart from this package's generator.
KNOWN_WORDS = {
    (0, 0): "dc9e2d2b f68d4ebc 8732a2e1 d06329a3",
    (2 * 2**32 + 5, 1): "bd004deb 45d000a6 a0959439 87cc92ef",
}


def scalar_philox(counter: tuple[int, int, int, int], key: int) -> list[int]:
    """Philox4x32-10 as Salmon et al. (SC 2011) write it, one word at a time."""
    x, y, z, w = counter
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        first, second = 0xD2511F53 * x, 0xCD9E8D57 * z
        x, y, z, w = second >> 32 ^ y ^ k0, second & 0xFFFFFFFF, first >> 32 ^ w ^ k1, first & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [x, y, z, w]


@pytest.mark.parametrize(("j", "call"), KNOWN_WORDS)
def test_known_answers(j: int, call: int) -> None:
    words = [int(word, 16) for word in KNOWN_WORDS[j, call].split()]
    assert words == scalar_philox((j & 0xFFFFFFFF, j >> 32, call, 1), 0x18C3DCF773EBF5DD)
    row = projection("w", 0, 1, 128 * (call + 1), offset=j)[0, 128 * call :]
    for k in range(128):
        assert row[k] == (-1.0 if words[k // 32] >> (k % 32) & 1 else 1.0), k


def test_the_first_signs_are_frozen() -> None:
    # 0x2b = 0b00101011, from the lowest bit
    assert projection("w", 0, 1, 8).tolist() == [[-1, -1, 1, -1, 1, -1, 1, 1]]


@pytest.mark.parametrize("offset", [0, 2**32 - 7, FAR])
def test_more_columns_and_other_cuts_keep_the_old_ones(offset: int) -> None:
    many = projection("w", 3, 101, 300, offset)
    for dim in (1, 31, 32, 33, 127, 128, 129, 256, 257):
        np.testing.assert_array_equal(projection("w", 3, 101, dim, offset), many[:, :dim])
    np.testing.assert_array_equal(projection("w", 3, 50, 300, offset + 51), many[51:])


def test_moments_of_a_million() -> None:
    p = projection("w", 3, 4_000, 256)
    assert set(np.unique(p)) == {-1.0, 1.0}
    assert standard_errors(p, 0.0) < 4
    for a, b in [(0, 1), (0, 31), (31, 32), (0, 32), (0, 128), (127, 128), (7, 200)]:
        assert standard_errors(p[:, a] * p[:, b], 0.0) < 4, f"columns {a} and {b} are correlated"
    assert standard_errors(p[:-1] * p[1:], 0.0) < 4, "neighbouring elements are correlated"
    four = p[:, :-3] * p[:, 1:-2] * p[:, 2:-1] * p[:, 3:]
    assert standard_errors(four, 0.0) < 4, "columns are independent by pairs, but not by fours"


@pytest.mark.parametrize("other", [("v", 3), ("w", 4)])
def test_names_and_seeds_are_independent(other: tuple[str, int]) -> None:
    assert standard_errors(projection("w", 3, 40_000, 16) * projection(*other, 40_000, 16), 0.0) < 4


def test_signs_are_independent_of_the_normals() -> None:
    assert standard_errors(projection("w", 3, 40_000, 16) * gaussian.projection("w", 3, 40_000, 16), 0.0) < 4


def test_one_entry_over_the_distributions() -> None:
    plan = {"name": "w", "seed": 3, "size": 12, "dim": 5, "offset": 24}
    np.testing.assert_array_equal(any_projection(**plan), gaussian.projection(**plan))
    np.testing.assert_array_equal(any_projection(**plan, distribution="rademacher"), projection(**plan))
    assert (scale("gaussian", 4), scale("rademacher", 4), scale("tensorsketch", 4)) == (0.5, 0.5, 1.0)
    with pytest.raises(ValueError, match=r"distribution must be one of .*got 'cauchy'"):
        any_projection(**plan, distribution="cauchy")
