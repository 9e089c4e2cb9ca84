"""The kernels by themselves on a device: normals a second, Llama's layers one by one, errors against float64."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import gpu_machine
import numpy as np
import torch
from gpu_cases import DIM, TorchProjection, lora_shapes
from gpu_report import Row, row
from gpu_timing import Timing, time_calls

from gradex_fast import kernels
from gradex_fast.bench.shapes import CACHE, Shape
from gradex_fast.reference.projection import projection, scale

ENTRIES_A_SECOND = 4e11
"""Normals, at least."""

NORMALS_FLOOR = 5e11
"""Normals a second that the floor of a shape counts with."""

TIMES_LAYER = 20.0
"""The sketch alone, against gradients that are formed and then projected, at least."""

ERROR = 1e-3
"""‖out - ref‖ / ‖ref‖ against float64 on the same inputs, at most."""

RANDOM = ("gaussian", "rademacher")

SHAPES = {
    "LoRA A": Shape(16, 512, 4096, 16),
    "LoRA A of down": Shape(16, 512, 14_336, 16),
    "LoRA B": Shape(16, 512, 16, 4096),
    "LoRA B of k, v": Shape(16, 512, 16, 1024),
    "LoRA B of gate, up": Shape(16, 512, 16, 14_336),
    "LoRA A, 1024 inputs": Shape(16, 512, 1024, 16),
    "GPT-2's attention": Shape(64, 128, 2304, 768),
    "GPT-2's MLP": Shape(64, 128, 768, 3072),
}


def rates(options) -> Iterator[Row]:
    """Entries of P a second: in `lift` of one vector, and in a sketch of 16 samples of one token."""
    dim, size, width = (1024, 1 << 22, 4096) if not options.quick else (64, 1 << 10, 32)
    for kind in RANDOM:
        plan = {"name": "weight", "seed": 0, "distribution": kind}
        vectors = [torch.randn(1, dim, device=options.device) for _ in range(4)]
        calls = [partial(kernels.lift, vector, size, **plan) for vector in vectors]
        yield _rate(options, f"lift [1, {dim}] to {size}", kind, calls, dim * size)
        tensors = [Shape(16, 1, width, width).tensors(options.device) for _ in range(4)]
        calls = [partial(kernels.sketch, *pair, dim=DIM, **plan) for pair in tensors]
        yield _rate(options, f"sketch [16, 1, {width}] × {width}, d = {DIM}", kind, calls, width * width * DIM)


def _rate(options, work: str, kind: str, calls: list, entries: int) -> Row:
    rate = entries / time_calls(calls, options.device, turns=options.turns).device
    gaussian = ENTRIES_A_SECOND if kind == "gaussian" else None
    note = gpu_machine.per_clock(rate, calls) if options.device == "cuda" else ""
    return row(f"entries of P a second, {kind}: {work}", rate, at_least=gaussian, note=note)


def shapes(options) -> Iterator[Row]:
    """Each shape's time beside what counting allows: bytes at the speed of a copy, normals at `NORMALS_FLOOR`."""
    bandwidth = _copy_bandwidth(options)
    yield row("bytes a second of a copy, read and written", bandwidth)
    chosen = {name: Shape(2, 8, 48, 16) for name in list(SHAPES)[:2]} if options.quick else SHAPES
    for name, shape in chosen.items():
        dim = 100 if name.startswith("GPT-2") else DIM
        sets = shape.rotating(options.device, 0 if options.quick else CACHE["cuda"])
        for kind in RANDOM:
            plan = {"name": "weight", "seed": 0, "dim": dim, "distribution": kind}
            calls = [partial(kernels.sketch, *pair, **plan) for pair in sets]
            found = time_calls(calls, options.device, turns=options.turns)
            figures = _counted(shape, dim, kind, found, bandwidth)
            yield row(f"{name}: {shape}, d = {dim}, {kind}", found.device * 1e6, "µs", figures=figures)
        del sets, calls


def _counted(shape: Shape, dim: int, kind: str, found: Timing, bandwidth: float) -> dict[str, float]:
    entries, read = shape.size * dim, shape.bytes_read / bandwidth
    floor = max(read, entries / NORMALS_FLOOR if kind == "gaussian" else 0.0)
    return {
        "µs": found.device * 1e6,
        "host µs": found.host * 1e6,
        "GB/s of X and D": shape.bytes_read / found.device / 1e9,
        "entries/s": entries / found.device,
        "reading, µs": read * 1e6,
        "normals, µs": entries / NORMALS_FLOOR * 1e6 if kind == "gaussian" else None,
        "times the floor": found.device / floor,
    }


def _copy_bandwidth(options) -> float:
    """Bytes read and bytes written a second."""
    source = torch.zeros(1 << (14 if options.quick else 30), dtype=torch.uint8, device=options.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / time_calls([partial(target.copy_, source)], options.device, turns=options.turns).device


def layer(options) -> Iterator[Row]:
    """All 14 matrices of a block of Llama's: the sketch, and [n, q, p] gradients projected by blocks of torch's P."""
    tensors = {name: shape.tensors(options.device) for name, shape in lora_shapes(options.quick).items()}
    samples = len(next(iter(tensors.values()))[0])
    total = torch.zeros(samples, DIM, device=options.device)
    made = TorchProjection(DIM, options.device, keep=False)

    def sketch() -> None:
        for name, (x, d) in tensors.items():
            kernels.sketch(x, d, name=name, seed=0, dim=DIM, out=total)

    def formed() -> None:
        for name, (x, d) in tensors.items():
            made(name, torch.einsum("nto,ntc->noc", d, x).flatten(1))

    ours, theirs = (time_calls([run], options.device, turns=options.turns) for run in (sketch, formed))
    figures = {
        "sketch ms": ours.device * 1e3,
        "its host ms": ours.host * 1e3,
        "32 blocks, ms": 32 * ours.device * 1e3,
        "formed and projected ms": theirs.device * 1e3,
    }
    what = "one Llama block, the sketch alone: times quicker than gradients formed and projected by torch"
    yield row(what, theirs.device / ours.device, "×", at_least=TIMES_LAYER, figures=figures)


def errors(options) -> Iterator[Row]:
    """‖out - ref‖ / ‖ref‖, the reference in float64 on the device with the specification's P."""
    sizes = [(4, 16, 48, 8)] if options.quick else [(16, 512, 1024, 16), (16, 512, 16, 1024), (16, 101, 201, 101)]
    for size in sizes:
        for distribution in RANDOM:
            plan = {"name": "weight", "seed": 0, "dim": DIM, "distribution": distribution}
            blocks = list(_blocks(size[2] * size[3], plan, options.device))
            for kind in (torch.bfloat16, torch.float16, torch.float32):
                shape = Shape(*size, kind)
                x, d = shape.tensors(options.device)
                exact = _exact(x, d, blocks, distribution)
                error = (kernels.sketch(x, d, **plan).double() - exact).norm() / exact.norm()
                what = f"error against float64, {distribution}: {shape}"
                yield row(what, float(error), at_most=ERROR, check=True)


def _blocks(size: int, plan: dict, device: str, rows: int = 1 << 13) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, rows of P float64) of the specification's P [size, d]."""
    for start in range(0, size, rows):
        block: np.ndarray = projection(size=min(rows, size - start), offset=start, **plan)
        yield start, torch.from_numpy(block).to(device)


def _exact(x: torch.Tensor, d: torch.Tensor, blocks: list, distribution: str) -> torch.Tensor:
    """Pᵀ vec(Σ_t d_t ⊗ x_t) · scale, float64 [n, dim]."""
    gradients = torch.einsum("nto,ntc->noc", d.double(), x.double()).flatten(1)
    total = sum(gradients[:, start : start + len(block)] @ block for start, block in blocks)
    return total * scale(distribution, blocks[0][1].shape[1])
