"""pytest benchmarks/bench_sketch.py: entries of P made and multiplied a second, per backend and shape."""

from __future__ import annotations

import pytest
import torch

from gradex_fast import kernels, native

SHAPES = {
    "lora_A 768 -> 16": (8, 128, 768, 16),
    "lora_B 16 -> 768": (8, 128, 16, 768),
    "full 768 -> 768": (8, 128, 768, 768),
}


@pytest.mark.parametrize("dim", [100, 512])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("instruction_set", native.instruction_sets()[1:] or native.instruction_sets())
def test_sketch(benchmark, instruction_set: str, shape: str, dim: int) -> None:
    n, t, p, q = SHAPES[shape]
    inputs, grads = torch.randn(n, t, p), torch.randn(n, t, q)
    benchmark.extra_info["entries of P"] = p * q * dim
    with native.using_instruction_set(instruction_set):
        benchmark(kernels.sketch, inputs, grads, name="weight", seed=0, dim=dim)
