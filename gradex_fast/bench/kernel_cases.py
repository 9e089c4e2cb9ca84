"""The kernels by themselves on the shapes of a model's layers: `sketch` of each, `project` and `lift` of a long row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn

from gradex_fast import kernels
from gradex_fast.bench import counts
from gradex_fast.bench.cases import Case, Group
from gradex_fast.bench.counts import Work
from gradex_fast.bench.settings import BenchSettings
from gradex_fast.bench.shapes import CACHE, Layer, Shape, layers_of
from gradex_fast.bench.turns import Call

LONGEST = 1 << 20
"""Elements of the row that `project` and `lift` are timed on, at most: their time is in proportion to it."""

PLAN = {"name": "weight", "seed": 0}


def kernel_groups(settings: BenchSettings, outline: nn.Module, device: str, dtype: torch.dtype) -> Iterator[Group]:
    """One for each shape among the model's layers, the largest first, with a case for every distribution.

    A batch is a pass's: rows × tokens, in the type that the model computes in; biases and scales come as float32 sums
    over tokens, as taps hand them on.
    """
    n, t, dim, cache = settings.rows, settings.tokens, settings.dim, CACHE[device]
    grouped, found = partial(_group, settings, device), layers_of(outline)[0]
    for layer in sorted(found, key=lambda layer: (-layer.q * layer.p, layer.kind)):
        about = {"layers": found[layer]}
        if layer.kind == "table":
            yield _look_ups(settings, layer, device, dtype, found[layer])
            continue
        summed = layer.kind == "vector"
        shape = Shape(n, 1 if summed else t, layer.p, layer.q, torch.float32 if summed else dtype)
        counted = partial(counts.sketch, n, shape.t, shape.p, shape.q, dim, size=shape.kind.itemsize)
        kernel = partial(kernels.sketch, dim=dim)
        yield grouped(f"sketch {layer}", kernel, partial(shape.rotating, device, cache), counted, shape.kind, **about)
    if not (length := min(LONGEST, max((layer.q * layer.p for layer in found), default=0))):
        return

    def rows() -> list[tuple]:
        return [(torch.randn(n, length, device=device),)]

    def weights() -> list[tuple]:
        return [(torch.randn(1, dim, device=device), length)]

    counted = partial(counts.project, n, length, dim)
    yield grouped(f"project {n} × {length}", partial(kernels.project, dim=dim), rows, counted, torch.float32)
    yield grouped(f"lift 1 × {length}", kernels.lift, weights, partial(counts.lift, 1, length, dim), torch.float32)


def _look_ups(settings: BenchSettings, layer: Layer, device: str, dtype: torch.dtype, layers: int) -> Group:
    """Random tokens look up a table of q rows."""
    n, t, dim = settings.rows, settings.tokens, settings.dim
    ids = torch.randint(layer.q, (n, t), generator=torch.Generator().manual_seed(0))
    sizes = (n, t, layer.p, len(ids.unique()), sum(len(row.unique()) for row in ids), dim)

    def tensors() -> list[tuple]:
        return [(torch.randn(n, t, layer.p, device=device, dtype=dtype), ids.to(device))]

    counted, kernel = partial(counts.sketch_rows, *sizes, size=dtype.itemsize), partial(kernels.sketch_rows, dim=dim)
    return _group(settings, device, f"sketch_rows {layer}", kernel, tensors, counted, dtype, layers)


def _group(
    settings: BenchSettings,
    device: str,
    name: str,
    kernel: Callable[..., object],
    tensors: Callable[[], Sequence[tuple]],
    counted: Callable[..., tuple[float, float, float]],
    dtype: torch.dtype,
    layers: int | None = None,
) -> Group:
    """One kernel on the same tensors by every distribution; on the CPU all of them compute in float32."""
    kind = "float32" if device == "cpu" else str(dtype).removeprefix("torch.")
    names = {f"{name}, {distribution}": distribution for distribution in settings.distributions}

    def make() -> Mapping[str, Sequence[Call]]:
        sets, plan = tensors(), {**PLAN, "threads": settings.threads}
        return {case: [partial(kernel, *each, **plan, distribution=d) for each in sets] for case, d in names.items()}

    cases = []
    for case, distribution in names.items():
        work = Work(*counted(distribution=distribution), kind=kind, distribution=distribution, device=device)
        done = {"entries of P": work.entries, "bytes": work.bytes, "FLOPs": work.flops}
        cases.append(Case(case, work, {unit: amount for unit, amount in done.items() if amount}, layers))
    return Group("kernels", tuple(cases), make, device=device)
