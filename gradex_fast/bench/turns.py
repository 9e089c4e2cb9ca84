"""Seconds of calls: cases take turns, so that what disturbs one disturbs all, and each turn is long enough to time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

import torch

Call = Callable[[], object]

CLOCKS = 2e9
"""Clocks a second of a streaming multiprocessor, at most about."""

LONGEST_HOLD = 0.2
"""Seconds that the device is kept waiting, at most, so that the host can run ahead of it."""

MOST_CALLS = 64
"""In one turn: a driver's queue holds about a thousand launches."""

BURST = 0.02
"""Seconds of a turn, at least."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        device: from the start of its first kernel to the end of its last one, in a queue that is never empty.
        host: what the calling thread spends before the call returns.
    """

    device: float
    host: float


def in_rounds(
    cases: Mapping[str, Sequence[Call]],
    device: str,
    *,
    rounds: int,
    seconds: float = math.inf,
    burst: float = BURST,
    wall: bool = False,
) -> dict[str, list[float]]:
    """Seconds of a call of every case, one figure a round; a round is a turn of each case.

    Every call runs once before, to warm up, unless the first ones take `seconds`; one more tells how many make a turn.

    Args:
        cases: a case's calls follow one another in rotation: several sets of inputs where one would stay in the cache.
        rounds: at most. seconds: for each case, about; one round is always run.
        wall: the clock on the wall around all of a call, in place of the device's own.
    """
    turn = turn_on(device, wall)
    rotation = {name: cycle(calls) for name, calls in cases.items()}
    counts, hosts, once = {}, {}, 0.0
    for name, calls in cases.items():
        _warm_up(calls, seconds)
        first = turn(rotation[name], 1, 0.0)
        counts[name] = max(1, min(MOST_CALLS, round(burst / max(first.device, 1e-9))))
        hosts[name], once = first.host * counts[name], once + first.device * counts[name]
    most = seconds * len(cases) / max(once, 1e-9)
    found: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(max(1, rounds if most >= rounds else int(most))):
        for name in cases:
            found[name].append(turn(rotation[name], counts[name], hosts[name]).device)
    return found


def _warm_up(calls: Sequence[Call], seconds: float) -> None:
    began = time.perf_counter()
    for call in calls:
        call()
        if time.perf_counter() - began > seconds:
            return


def turn_on(device: str, wall: bool = False) -> Callable[[Iterator[Call], int, float], Timing]:
    """Runs `count` calls one after another and gives the mean; its last argument is the host's seconds, if known."""
    if device == "cpu":
        return _cpu_turn
    return _wall_turn if wall else _cuda_turn


def _cuda_turn(calls: Iterator[Call], count: int, host: float) -> Timing:
    """`host`: seconds that the calls are expected to keep the calling thread; the device sleeps twice as long."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(int(CLOCKS * min(LONGEST_HOLD, 2 * host)))
    start.record()
    spent = _run(calls, count)
    end.record()
    end.synchronize()
    return Timing(start.elapsed_time(end) / 1e3 / count, spent / count)


def _wall_turn(calls: Iterator[Call], count: int, host: float) -> Timing:
    torch.cuda.synchronize()
    began = time.perf_counter()
    spent = _run(calls, count)
    torch.cuda.synchronize()
    return Timing((time.perf_counter() - began) / count, spent / count)


def _cpu_turn(calls: Iterator[Call], count: int, host: float) -> Timing:
    spent = _run(calls, count) / count
    return Timing(spent, spent)


def _run(calls: Iterator[Call], count: int) -> float:
    """Seconds of the calling thread; what the calls return goes at once."""
    began = time.perf_counter()
    for call in islice(calls, count):
        call()
    return time.perf_counter() - began
