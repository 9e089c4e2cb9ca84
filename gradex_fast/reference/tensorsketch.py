"""P of TensorSketch, element by element (Pham and Pagh 2013, "Fast and scalable polynomial kernels", §4).

An element is output o and input c, j = o · width + c. Each side has a bucket h and a sign s; P has one ±1 a row:

    P[j, k] = s_out(o) s_in(c) [h_out(o) + h_in(c) ≡ k mod dim]

so that Pᵀ vec(d ⊗ x) is the circular convolution of the CountSketches of d and x. E ⟨Pᵀa, Pᵀb⟩ = ⟨a, b⟩ as it stands:
no 1/√dim. Unlike the other distributions', its columns depend on dim and on the width.
"""

from __future__ import annotations

import numpy as np

from gradex_fast.reference.gaussian import key, philox

INPUTS, OUTPUTS = 2, 3
"""Word 3 of the counter for either side: no other distribution's."""


def hashes(key: int, side: int, start: int, count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Buckets int64 [count], 0 ... dim - 1, and signs float64 [count], ±1, of the indices start ... start + count - 1.

    Of the words of philox((index low, index high, 0, side)), x gives the bucket ⌊x · dim / 2³²⌋, whose probability is
    1/dim to within 2⁻³² (relatively dim · 2⁻³²), and y's lowest bit the sign: 0 is +1, 1 is -1.
    """
    index = np.arange(start, start + count, dtype=np.uint64)
    counter = np.zeros((count, 4), np.uint32)
    counter[:, 0], counter[:, 1], counter[:, 3] = index & np.uint64(0xFFFFFFFF), index >> np.uint64(32), side
    words = philox(counter, key).astype(np.uint64)
    buckets = ((words[:, 0] * np.uint64(dim)) >> np.uint64(32)).astype(np.int64)
    return buckets, 1.0 - 2.0 * (words[:, 1] & np.uint64(1))


def projection(name: str, seed: int, size: int, dim: int, offset: int = 0, width: int | None = None) -> np.ndarray:
    """P [size, dim] for the elements offset ... offset + size - 1 of a parameter with `width` inputs, as float64.

    `width` None: one line, the elements are the inputs of output 0.
    """
    width = width or max(1, offset + size)
    output, column = np.divmod(np.arange(offset, offset + size), width)
    first = offset // width
    h_in, s_in = hashes(key(name, seed), INPUTS, 0, width, dim)
    h_out, s_out = hashes(key(name, seed), OUTPUTS, first, (offset + size) // width + 1 - first, dim)
    matrix = np.zeros((size, dim))
    bucket = (h_out[output - first] + h_in[column]) % dim
    matrix[np.arange(size), bucket] = s_out[output - first] * s_in[column]
    return matrix
