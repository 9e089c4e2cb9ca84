"""TensorSketch in torch, on the CPU and CUDA; `reference/tensorsketch.py` has the definition of its P.

CountSketch is linear, and P turns an outer product into the circular convolution of two CountSketches, so

    Pᵀ vec(Σ_t d_t ⊗ x_t) = irfft(Σ_t rfft(CS_out d_t) · rfft(CS_in x_t)),

O(t (p + q + dim log dim)) for a sample. Sums are in float32; on CUDA their order, and so the last bits, may change from
call to call unless torch.use_deterministic_algorithms is on.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from gradex_fast.reference.tensorsketch import INPUTS, OUTPUTS, hashes

_BLOCK = 1024
"""Hashes are made in aligned blocks, so that one row of an embedding does not make them one by one."""

_CACHED = 1 << 14
"""Blocks kept: at most 128 MB, the hashes of 16 million inputs and outputs."""

_NUMBERS = 1 << 19
"""In a temporary array, where the shape allows it: larger ones leave the processor's cache."""


def sketch(
    out: torch.Tensor,
    inputs: torch.Tensor,
    grads: torch.Tensor,
    lengths: torch.Tensor | None,
    *,
    key: int,
    offset: int,
) -> None:
    """out [n, dim] += Pᵀ vec(Σ_t grads[i, t] ⊗ inputs[i, t]) of inputs [n, t, p], grads [n, t, q].

    `offset` is a multiple of p.
    """
    (n, t, p), q, dim = inputs.shape, grads.shape[2], out.shape[1]
    sides = (INPUTS, 0, p), (OUTPUTS, offset // p, q)
    tables = [_hashes(key, *side, dim, out.device) for side in sides]
    step = max(1, _NUMBERS // (t * max(p, q, dim)))
    for rows in (slice(start, start + step) for start in range(0, n, step)):
        x, d = (
            _count_sketch(f[rows].detach().reshape(-1, f.shape[2]), *table, dim).view(-1, t, dim)
            for f, table in zip((inputs, grads), tables, strict=True)
        )
        if lengths is not None:
            past = torch.arange(t, device=out.device) >= lengths[rows].to(out.device)[:, None]
            x, d = (factor.masked_fill(past[..., None], 0) for factor in (x, d))
        spectrum = (torch.fft.rfft(x) * torch.fft.rfft(d)).sum(1)
        out[rows] += torch.fft.irfft(spectrum, n=dim)


def sketch_rows(out: torch.Tensor, values: torch.Tensor, rows: torch.Tensor, *, key: int) -> None:
    """out [n, dim] += Pᵀ vec(G), G[rows[i, t]] gets values [n, t, w][i, t]; negative rows are none.

    A line's output is one index, whose CountSketch is one ±1: the inputs' CountSketch is shifted by its bucket.
    """
    (n, t, width), dim = values.shape, out.shape[1]
    x = _count_sketch(values.detach().reshape(-1, width), *_hashes(key, INPUTS, 0, width, dim, out.device), dim)
    found, place = rows.clamp(min=0).unique(return_inverse=True)
    tables = [_hashes(key, OUTPUTS, row, 1, dim, out.device) for row in found.tolist()]
    buckets, signs = (torch.cat(parts)[place.flatten()][:, None] for parts in zip(*tables, strict=True))
    shifted = (torch.arange(dim, device=out.device) + buckets) % dim
    signed = x * signs * (rows.flatten() >= 0)[:, None]
    out.scatter_add_(1, shifted.view(n, t * dim), signed.view(n, t * dim))


def project(out: torch.Tensor, rows: torch.Tensor, *, key: int, offset: int, width: int) -> None:
    """out [n, dim] += rows [n, q · width] · P. `offset` is a multiple of the width."""
    for lines, buckets, signs in _lines(key, offset, rows.shape[1], width, out.shape[1], out.device):
        part = rows.detach()[:, lines].to(torch.float32)
        out += _count_sketch(part, buckets, signs, out.shape[1])


def lift(out: torch.Tensor, weights: torch.Tensor, *, key: int, offset: int, width: int) -> None:
    """out [m, q · width] = weights [m, dim] · Pᵀ: a look-up, without rounding. `offset` as in `project`."""
    weights = weights.detach().to(torch.float32)
    for lines, buckets, signs in _lines(key, offset, out.shape[1], width, weights.shape[1], out.device):
        out[:, lines] = weights[:, buckets] * signs


def _lines(key: int, offset: int, size: int, width: int, dim: int, device: torch.device):
    """The bucket and sign of every element, some whole lines at a time: (slice of elements, int64, float32)."""
    h_in, s_in = _hashes(key, INPUTS, 0, width, dim, device)
    count, step = size // width, max(1, _NUMBERS // width)
    for start in range(0, count, step):
        stop = min(start + step, count)
        h_out, s_out = _hashes(key, OUTPUTS, offset // width + start, stop - start, dim, device)
        buckets, signs = (h_out[:, None] + h_in) % dim, s_out[:, None] * s_in
        yield slice(start * width, stop * width), buckets.flatten(), signs.flatten()


def _count_sketch(rows: torch.Tensor, buckets: torch.Tensor, signs: torch.Tensor, dim: int) -> torch.Tensor:
    """float32 [n, dim]: column k is Σ signs[c] rows[:, c] over the c with buckets[c] = k.

    A product with the ±1 matrix [p, dim] takes dim times the sums: 16 ms for 8,192 rows of p = 768 on one core at dim
    100 and 69 ms at 512, where this takes 5.4 and 6.6.
    """
    signed = rows.to(torch.float32) * signs
    zeros = torch.zeros(len(rows), dim, dtype=torch.float32, device=rows.device)
    return zeros.index_add_(1, buckets, signed)


def _hashes(
    key: int, side: int, start: int, count: int, dim: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(buckets int64 [count], signs float32 [count]) of the indices start ... start + count - 1, on `device`."""
    first, last = start // _BLOCK, (start + count - 1) // _BLOCK
    blocks = [_block(key, side, block, dim) for block in range(first, last + 1)]
    kept = slice(start - first * _BLOCK, start - first * _BLOCK + count)
    buckets, signs = (torch.from_numpy(np.concatenate(parts)[kept]) for parts in zip(*blocks, strict=True))
    return buckets.to(device, torch.int64), signs.to(device, torch.float32)


@lru_cache(_CACHED)
def _block(key: int, side: int, block: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    buckets, signs = hashes(key, side, block * _BLOCK, _BLOCK, dim)
    return buckets.astype(np.int32), signs.astype(np.int8)
