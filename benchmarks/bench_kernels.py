"""pytest benchmarks/bench_kernels.py: the kernel cases of `gradex-fast bench`, one thread, with what they have to do.

Both adapters of GPT-2, every distribution. `-k lora`, `-k "project and gaussian"` and the like pick some.
"""

from __future__ import annotations

from itertools import cycle

import pytest
import torch

from gradex_fast.bench.kernel_cases import kernel_groups
from gradex_fast.bench.models import recipe_of
from gradex_fast.bench.settings import BenchSettings
from gradex_fast.kernels import DISTRIBUTIONS
from gradex_fast.model import load_outline


def cases() -> dict[str, tuple]:
    found = {}
    for adapter in ("lora", "full"):
        settings = BenchSettings(adapter=adapter, distributions=DISTRIBUTIONS, threads=1)
        with recipe_of("gpt2", adapter=adapter, dtype="float32") as recipe:
            groups = list(kernel_groups(settings, load_outline(recipe), "cpu", torch.float32))
        found |= {f"{adapter}: {case.name}": (group, case) for group in groups for case in group.cases}
    return found


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_kernel(benchmark, name: str) -> None:
    group, case = CASES[name]
    benchmark.extra_info |= {"bytes": case.work.bytes, "FLOPs": case.work.flops, "entries of P": case.work.entries}
    calls = cycle(group.make()[case.name])
    benchmark(lambda: next(calls)())
