"""pytest benchmarks/bench_lift.py: the adjoint, P w / √d, per instruction set.

One thread makes entries of P and little else; `-k one_core --benchmark-timer=time.process_time` has their rate, on a
busy machine too.
"""

from __future__ import annotations

import pytest
import torch

from gradex_fast import kernels, native


@pytest.mark.parametrize("instruction_set", native.instruction_sets()[1:] or native.instruction_sets())
def test_lift(benchmark, instruction_set: str) -> None:
    weights, size = torch.randn(1, 100), 1_000_000
    benchmark.extra_info["entries of P"] = weights.numel() * size
    with native.using_instruction_set(instruction_set):
        benchmark(kernels.lift, weights, size, name="weight", seed=0)


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
def test_one_core(benchmark, instruction_set: str) -> None:
    weights, size = torch.randn(1, 100), 300_000
    benchmark.extra_info["entries of P"] = weights.numel() * size
    with native.using_instruction_set(instruction_set):
        benchmark(kernels.lift, weights, size, name="weight", seed=0, threads=1)
