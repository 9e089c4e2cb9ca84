"""Seconds on the device, peak memory, and the largest batch that fits: what the measures of `gpu_check.py` share."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TypeVar

import numpy as np
import process_memory
import torch

from gradex_fast.bench.turns import BURST, MOST_CALLS, Call, Timing, turn_on
from gradex_fast.memory import out_of_memory

Found = TypeVar("Found")


def time_calls(calls: Sequence[Call], device: str, *, turns: int = 7, burst: float = BURST) -> Timing:
    """The median over turns of about `burst` seconds each, in which the calls follow one another in rotation.

    Give calls on several sets of inputs where one set would stay in the cache. What the calls return goes at once.
    """
    turn = turn_on(device)
    for call in calls:
        call()
    once = turn(cycle(calls), len(calls), 0.0)
    count = max(len(calls), min(MOST_CALLS, round(burst / once.device)))
    found = [turn(cycle(calls), count, once.host * count) for _ in range(turns)]
    return Timing(*(float(np.median([getattr(each, name) for each in found])) for name in ("device", "host")))


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
