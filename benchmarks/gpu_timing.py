"""Seconds on the device, peak memory, and the largest batch that fits: what the measures of `gpu_check.py` share."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import process_memory
import torch

from gradex_fast.memory import out_of_memory

Call = Callable[[], object]
Found = TypeVar("Found")

CLOCKS = 2e9
"""Clocks a second of a streaming multiprocessor, at most about."""

LONGEST_HOLD = 0.2
"""Seconds that the device is kept waiting, at most, so that the host can run ahead of it."""

MOST_CALLS = 64
"""In one turn: a driver's queue holds about a thousand launches."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        device: from the start of its first kernel to the end of its last one, in a queue that is never empty.
        host: what the calling thread spends before the call returns.
    """

    device: float
    host: float


def time_calls(calls: Sequence[Call], device: str, *, turns: int = 7, burst: float = 0.02) -> Timing:
    """The median over turns of about `burst` seconds each, in which the calls follow one another in rotation.

    Give calls on several sets of inputs where one set would stay in the cache. What the calls return goes at once.
    """
    turn = _cuda_turn if device == "cuda" else _cpu_turn
    for call in calls:
        call()
    once = turn(calls, len(calls), 0.0)
    count = max(len(calls), min(MOST_CALLS, round(burst / once.device)))
    found = [turn(calls, count, once.host * count) for _ in range(turns)]
    return Timing(*(float(np.median([getattr(each, name) for each in found])) for name in ("device", "host")))


def _cuda_turn(calls: Sequence[Call], count: int, host: float) -> Timing:
    """`host`: seconds that the calls are expected to keep the calling thread; the device sleeps twice as long."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(int(CLOCKS * min(LONGEST_HOLD, 2 * host)))
    start.record()
    began = time.perf_counter()
    for index in range(count):
        calls[index % len(calls)]()
    host = time.perf_counter() - began
    end.record()
    end.synchronize()
    return Timing(start.elapsed_time(end) / 1e3 / count, host / count)


def _cpu_turn(calls: Sequence[Call], count: int, host: float) -> Timing:
    began = time.perf_counter()
    for index in range(count):
        calls[index % len(calls)]()
    spent = (time.perf_counter() - began) / count
    return Timing(spent, spent)


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(run: Call, device: str) -> int:
    """The most that torch has allocated on the device while `run` lasts, the model included; on the CPU, resident."""
    if device == "cpu":
        process_memory.baseline()
        run()
        return process_memory.peak()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def fitting(rows: int, measure: Callable[[int], Found]) -> tuple[int, Found]:
    """(rows, measure(rows)), with the rows halved as long as memory runs out."""
    while True:
        try:
            return rows, measure(rows)
        except (RuntimeError, MemoryError) as error:  # its traceback holds the tensors, and ends with this block
            if rows == 1 or not out_of_memory(error):
                raise
            print(f"{rows} rows do not fit: {str(error).splitlines()[0]}", flush=True)
        release()
        rows //= 2


def release() -> None:
    """Give what nobody holds back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
