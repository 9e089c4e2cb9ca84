"""What this machine can do at most, measured: bytes a second, FLOPs a second, entries of P a second."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from gradex_fast import kernels
from gradex_fast.bench.turns import Call, in_rounds

ROUNDS, SECONDS = 5, 1.0
"""Of each ceiling; its best round counts."""

LONG_ENOUGH = {"cpu": 0.02, "cuda": 0.005}
"""Seconds of a call from which on a larger one would not be quicker a unit."""

ARRAY = {"cpu": 1 << 24, "cuda": 1 << 28}
"""Numbers of one of the triad's three float32 arrays: no cache holds them."""

LARGEST_MATRIX, LARGEST_LIFT, DIM = 8192, 1 << 24, 128

UNITS = {"bandwidth": "bytes/s", "float32": "FLOP/s", "bfloat16": "FLOP/s"}
"""Of a ceiling; the others are distributions, in entries of P a second."""


def measure(device: str, distributions: Sequence[str], threads: int | None) -> dict[str, float]:
    """A second, by name: bandwidth, float32, bfloat16, and every distribution whose P is made of entries.

    The bandwidth is the better of a triad and a copy, each byte counted where the program names it. Entries of P are
    made by `kernels.lift` of one vector, which does little else with them.
    """
    found = {"bandwidth": max(_best(calls, device, moved) for calls, moved in _streams(device))}
    for kind in (torch.float32, torch.bfloat16):
        size = _large_enough(partial(_matmul, kind, device), 256, LARGEST_MATRIX, device)
        found[str(kind).removeprefix("torch.")] = _best(_matmul(kind, device, size), device, 2.0 * size**3)
    for distribution in distributions:
        if distribution != "tensorsketch":
            made = partial(_lift, distribution, device, threads)
            size = _large_enough(made, 1 << 16, LARGEST_LIFT, device)
            found[distribution] = _best(made(size), device, float(DIM) * size)
    return found


def _best(calls: Sequence[Call], device: str, amount: float) -> float:
    spent = in_rounds({"": calls}, device, rounds=ROUNDS, seconds=SECONDS)[""]
    return amount / min(spent)


def _streams(device: str) -> list[tuple[Sequence[Call], float]]:
    """Calls and their bytes: a = b + 3 c, and a = b."""
    a, b, c = (torch.zeros(ARRAY[device], device=device) for _ in range(3))
    return [([partial(torch.add, b, c, alpha=3.0, out=a)], 3.0 * a.nbytes), ([partial(a.copy_, b)], 2.0 * a.nbytes)]


def _matmul(kind: torch.dtype, device: str, size: int) -> Sequence[Call]:
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    return [partial(torch.mm, a, b, out=torch.empty_like(a))]


def _lift(distribution: str, device: str, threads: int | None, size: int) -> Sequence[Call]:
    plan = {"name": "weight", "seed": 0, "distribution": distribution, "threads": threads}
    return [partial(kernels.lift, torch.randn(1, DIM, device=device), size, **plan)]


def _large_enough(calls: Callable[[int], Sequence[Call]], size: int, largest: int, device: str) -> int:
    """Doubled until a call is long enough."""
    while size < largest:
        (spent,) = in_rounds({"": calls(size)}, device, rounds=1, burst=0.0)[""]
        if spent >= LONG_ENOUGH[device]:
            break
        size *= 2
    return size
