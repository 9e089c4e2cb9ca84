"""P of ±1, element by element: one bit of Philox4x32-10 a column (DESIGN §2)."""

from __future__ import annotations

import numpy as np

from gradex_fast.reference.gaussian import key, philox

COUNTER = 1
"""Word 3 of the counter: no word that makes a normal makes a sign."""


def projection(name: str, seed: int, size: int, dim: int, offset: int = 0) -> np.ndarray:
    """P [size, dim] for the elements offset ... offset + size - 1 of parameter `name`: ±1 as float64.

    The words x, y, z, w of philox((j low, j high, k div 128, 1)) are the columns 128 (k div 128) ... + 127: column k
    takes bit k mod 32 of word (k mod 128) div 32; 0 is +1, 1 is -1.
    """
    j = np.arange(offset, offset + size, dtype=np.uint64)[:, None]
    calls = -(-dim // 128)
    counter = np.zeros((size, calls, 4), np.uint32)
    counter[..., 0], counter[..., 1] = j & np.uint64(0xFFFFFFFF), j >> np.uint64(32)
    counter[..., 2], counter[..., 3] = np.arange(calls), COUNTER
    words = philox(counter, key(name, seed))
    bits = (words[..., None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    return 1.0 - 2.0 * bits.reshape(size, 128 * calls)[:, :dim]
