"""What a kernel has to do at least, by counting: bytes, FLOPs and entries of P.

A byte is counted once however often a kernel reads it, an entry of P once however many samples it meets: the counts
are those of the task, not of an implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradex_fast.row_pass import sketch_flops

OUT = 4
"""Bytes of a sketch's entry, float32."""


@dataclass(frozen=True)
class Work:
    """Of one call.

    Attributes:
        bytes: read and written. flops: multiplications and additions. entries: of P that are made.
        kind: the type whose peak bounds the FLOPs, "float32" or "bfloat16".
        distribution: of the entries. device: whose ceilings apply.
    """

    bytes: float
    flops: float
    entries: float = 0.0
    kind: str = "float32"
    distribution: str = "gaussian"
    device: str = "cpu"

    def floors(self, ceilings: Mapping[str, float]) -> dict[str, float]:
        """Seconds that each ceiling (a second, by name) leaves no way around; what is not limited is left out."""
        counted = {"bandwidth": self.bytes, self.kind: self.flops, self.distribution: self.entries}
        return {name: amount / ceilings[name] for name, amount in counted.items() if amount and name in ceilings}


def sketch(n: int, t: int, p: int, q: int, dim: int, *, size: int, distribution: str) -> tuple[float, float, float]:
    """(bytes, FLOPs, entries) of `kernels.sketch`: inputs [n, t, p], grads [n, t, q], `size` bytes a number."""
    products = 2.0 * t * p * q if min(p, q) > 1 else 0.0  # with one side of one feature a sum over tokens
    flops = n * sketch_flops(distribution, dim, products, p * q, t * (p + q), 2 * t + 1)
    return n * t * (p + q) * size + n * dim * OUT, flops, _entries(p * q, dim, distribution)


def sketch_rows(
    n: int, t: int, width: int, found: int, pairs: int, dim: int, *, size: int, distribution: str
) -> tuple[float, float, float]:
    """(bytes, FLOPs, entries) of `kernels.sketch_rows`: values [n, t, w].

    Args:
        found: different rows in the batch. pairs: (sample, row), each once.
    """
    flops = n * t * width + 2.0 * dim * pairs * width
    if distribution == "tensorsketch":
        flops = n * sketch_flops(distribution, dim, 0.0, 0.0, t * width, 0)
    return n * t * (width * size + 8) + n * dim * OUT, flops, _entries(found * width, dim, distribution)


def project(n: int, length: int, dim: int, *, distribution: str) -> tuple[float, float, float]:
    """(bytes, FLOPs, entries) of `kernels.project`: float32 rows [n, length]."""
    flops = 2.0 * n * length * (1 if distribution == "tensorsketch" else dim)
    return 4.0 * n * length + n * dim * OUT, flops, _entries(length, dim, distribution)


def lift(m: int, length: int, dim: int, *, distribution: str) -> tuple[float, float, float]:
    """(bytes, FLOPs, entries) of `kernels.lift`: float32 weights [m, dim] to [m, length]."""
    flops = 2.0 * m * length * (1 if distribution == "tensorsketch" else dim)
    return 4.0 * m * (length + dim), flops, _entries(length, dim, distribution)


def _entries(elements: int, dim: int, distribution: str) -> float:
    return 0.0 if distribution == "tensorsketch" else float(elements) * dim
