"""What a sketch is for each distribution of P, how far rounding may take it, and how its inner products spread."""

from __future__ import annotations

import math

import numpy as np
import torch
from exact_sketch import UNIT, allowed, dense, way_through_a_tile

from gradex_fast.reference.gaussian import key
from gradex_fast.reference.projection import projection, scale
from gradex_fast.reference.tensorsketch import INPUTS, OUTPUTS, hashes

DISTRIBUTIONS = ("gaussian", "rademacher", "tensorsketch")


def kept_tokens(x, d, lengths=None) -> tuple[np.ndarray, np.ndarray]:
    """Both factors in float64, 0 past the lengths."""
    x, d = (torch.as_tensor(array).detach().double().cpu().numpy() for array in (x, d))
    tokens = np.full(len(x), x.shape[1]) if lengths is None else np.asarray(lengths)
    kept = (np.arange(x.shape[1]) < tokens[:, None])[..., None]
    return np.where(kept, x, 0.0), np.where(kept, d, 0.0)


def exact_and_allowed(
    x, d, distribution: str, *, name: str, seed: int, dim: int, lengths=None, offset: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The sketch in float64 [n, dim] and what float32 may be off, [n, dim].

    For ±1 and normals as in `exact_sketch`: terms · UNIT · Σ |D|ᵀ|X| |P| / √dim.
    """
    x, d = kept_tokens(x, d, lengths)
    p, q = x.shape[2], d.shape[2]
    plan = {"name": name, "seed": seed, "dim": dim, "distribution": distribution}
    matrix = projection(size=p * q, offset=offset, width=max(1, p), **plan) * scale(distribution, dim)
    exact = dense(x, d) @ matrix
    if distribution == "tensorsketch":
        return exact, np.broadcast_to(_fft_allowed(x, d, key(name, seed), dim, offset)[:, None], exact.shape)
    largest = dense(abs(x), abs(d)) @ abs(matrix)
    return exact, allowed(x.shape[1] + way_through_a_tile() + 6 + p * q / 4096, largest, exact)


def _fft_allowed(x: np.ndarray, d: np.ndarray, key: int, dim: int, offset: int) -> np.ndarray:
    """terms · UNIT · Σ_t |CS_in |x_t|| |CS_out |d_t||, [n]: a bound by norms, since a transform mixes all entries.

    A bucket of m indices is rounded m times. A transform of length dim errs by about UNIT log₂ dim of its input's
    norm (Higham 2002, theorem 24.2), a prime one, which is made of three of length 2 dim to 4 dim, by three times as
    much; there are three on the way, hence 9 log₂ 4 dim. The sum over tokens adds t and the products and roundings 8.
    """
    p, q = x.shape[2], d.shape[2]
    (h_in, _), (h_out, _) = hashes(key, INPUTS, 0, p, dim), hashes(key, OUTPUTS, offset // max(1, p), q, dim)
    count_in, count_out = np.eye(dim)[h_in], np.eye(dim)[h_out]
    norms = np.linalg.norm(abs(x) @ count_in, axis=2) * np.linalg.norm(abs(d) @ count_out, axis=2)
    load = count_in.sum(0).max(initial=0) + count_out.sum(0).max(initial=0)
    return (load + 9 * math.log2(4 * dim) + x.shape[1] + 8) * UNIT * norms.sum(1)


def variance(a: np.ndarray, b: np.ndarray, dim: int, distribution: str) -> float:
    """Of ⟨sketch(a), sketch(b)⟩ over seeds, for gradients a, b [q, p].

    Normals: (|a|²|b|² + ⟨a, b⟩²) / dim. Signs: 2 Σ a_j² b_j² / dim less, since their fourth moment is 1, not 3.
    TensorSketch: pairs of elements (o, c), (o', c') collide with probability 1/dim. With o = o' the sign of a pair is
    that of c and c', for every o: the pairs add up before they are squared, and so for c = c'. With o ≠ o', c ≠ c' the
    pair and its mirror image (o, c'), (o', c) have one sign, and collide both with probability gcd(2, dim) / dim².
    """
    inner, norms = (a * b).sum(), (a * a).sum() * (b * b).sum()
    if distribution != "tensorsketch":
        return (norms + inner**2 - (2 * (a**2 * b**2).sum() if distribution == "rademacher" else 0.0)) / dim
    columns, lines = a.T @ b + b.T @ a, a @ b.T + b @ a.T
    same_output, same_input = (np.triu(m, 1) ** 2 for m in (columns, lines))
    products = np.einsum("oc,pd->opcd", a, b)
    pair = products + products.transpose(1, 0, 3, 2)  # [o, o', c, c'], of (o, c) with (o', c')
    upper = np.triu(np.ones(pair.shape[:2]), 1)[:, :, None, None] * np.triu(np.ones(pair.shape[2:]), 1)
    mirror = pair.transpose(0, 1, 3, 2)
    single = (upper * (pair**2 + mirror**2)).sum() + same_output.sum() + same_input.sum()
    return single / dim + 2 * math.gcd(2, dim) / dim**2 * (upper * pair * mirror).sum()
