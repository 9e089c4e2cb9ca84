"""A checked call's work, on CUDA, the CPU, the GPU's kernels on the CPU, or by the reference; every tensor is real.

All take: an output float32 [n, columns], the tensors, then the plan as `ops.py` has it in its schemas, in that order.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch

from gradex_fast import native, tensorsketch
from gradex_fast.arguments import check_lengths, thread_count
from gradex_fast.reference import gaussian
from gradex_fast.reference.lift import lift as reference_lift
from gradex_fast.reference.sketch import project as reference_project
from gradex_fast.reference.sketch import sketch as reference_sketch
from gradex_fast.reference.sketch import sketch_rows as reference_sketch_rows

philox_key = lru_cache(1 << 14)(gaussian.key)
"""A third of a small call's time, and asked for again with every batch."""


def sketch(
    total: torch.Tensor,
    x: torch.Tensor,
    d: torch.Tensor,
    lengths: torch.Tensor | None,
    dim: int,
    name: str,
    seed: int,
    distribution: str,
    offset: int,
    threads: int | None,
    backend: str | None,
) -> None:
    """total [n, dim] += the sketch of x [n, t, p], d [n, t, q]."""
    offset %= 1 << 64
    check_lengths(lengths, x)
    if backend == "reference":
        kept = None if lengths is None else lengths.cpu().numpy()
        arrays = x.detach().double().cpu().numpy(), d.detach().double().cpu().numpy()
        plan = {"name": name, "seed": seed, "dim": dim, "offset": offset, "distribution": distribution}
        total += torch.from_numpy(reference_sketch(*arrays, lengths=kept, **plan)).to(total)
    elif not x.numel() or not d.numel():
        pass
    elif distribution == "tensorsketch":
        tensorsketch.sketch(total, x, d, lengths, key=philox_key(name, seed), offset=offset)
    else:
        native.sketch(total, x, d, lengths, offset=offset, **_compiled(name, seed, dim, distribution, threads, backend))


def project(
    total: torch.Tensor,
    x: torch.Tensor,
    dim: int,
    name: str,
    seed: int,
    distribution: str,
    offset: int,
    width: int,
    threads: int | None,
    backend: str | None,
) -> None:
    """total [n, dim] += x [n, p] · P / √dim."""
    offset %= 1 << 64
    if backend == "reference":
        plan = {"name": name, "seed": seed, "dim": dim, "offset": offset, "distribution": distribution, "width": width}
        total += torch.from_numpy(reference_project(x.detach().double().cpu().numpy(), **plan)).to(total)
    elif not x.numel():
        pass
    elif distribution == "tensorsketch":
        tensorsketch.project(total, x, key=philox_key(name, seed), offset=offset, width=width)
    else:
        ones = torch.ones(len(x), 1, 1, device=x.device)
        plan = _compiled(name, seed, dim, distribution, threads, backend)
        native.sketch(total, x[:, None, :], ones, None, offset=offset, **plan)


def sketch_rows(
    total: torch.Tensor,
    values: torch.Tensor,
    rows: torch.Tensor,
    dim: int,
    name: str,
    seed: int,
    distribution: str,
    threads: int | None,
    backend: str | None,
) -> None:
    """total [n, dim] += the sketch of values [n, t, w] added up by rows [n, t]."""
    if backend == "reference":
        plan = {"name": name, "seed": seed, "dim": dim, "distribution": distribution}
        exact = reference_sketch_rows(values.detach().double().cpu().numpy(), rows.cpu().numpy(), **plan)
        total += torch.from_numpy(exact).to(total)
    elif not values.numel():
        pass
    elif distribution == "tensorsketch":
        tensorsketch.sketch_rows(total, values, rows, key=philox_key(name, seed))
    else:
        found, start, token = _by_row(rows)
        plan = _compiled(name, seed, dim, distribution, threads, backend)
        if not (values.is_cuda or plan["lanes"]):
            found = found[: int((start[1:] > start[:-1]).sum())]
        if len(found):
            native.sketch_rows(total, values, found, start, token, **plan)


def lift(
    out: torch.Tensor,
    w: torch.Tensor,
    size: int,
    name: str,
    seed: int,
    distribution: str,
    offset: int,
    width: int,
    threads: int | None,
    backend: str | None,
) -> None:
    """out [m, size] = w [m, dim] · Pᵀ / √dim."""
    offset %= 1 << 64
    w = w.detach()
    if backend == "reference":
        plan = {"name": name, "seed": seed, "offset": offset, "distribution": distribution, "width": width}
        out.copy_(torch.from_numpy(reference_lift(w.double().cpu().numpy(), size, **plan)))
    elif not out.numel():
        pass
    elif distribution == "tensorsketch":
        tensorsketch.lift(out, w, key=philox_key(name, seed), offset=offset, width=width)
    else:
        native.lift(out, w, offset=offset, **_compiled(name, seed, w.shape[1], distribution, threads, backend))


_LIFTED = 1 << 24
"""Numbers of P w that `sketch_backward` holds at once, where more than one sample's fit."""


def sketch_backward(
    grad: torch.Tensor,
    x: torch.Tensor,
    d: torch.Tensor,
    lengths: torch.Tensor | None,
    dim: int,
    name: str,
    seed: int,
    distribution: str,
    offset: int,
    threads: int | None,
    backend: str | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `sketch` hands back for grad [n, dim]: with L_i = lift(grad_i) as [q, p], x gets d L and d gets x Lᵀ."""
    (n, t, p), q = x.shape, d.shape[2]
    to_x, to_d = torch.zeros_like(x, memory_format=_ROWS), torch.zeros_like(d, memory_format=_ROWS)
    step = max(1, _LIFTED // max(1, p * q))
    for rows in (slice(start, start + step) for start in range(0, n if p * q else 0, step)):
        lifted = torch.empty(len(x[rows]), q * p, dtype=torch.float32, device=x.device)
        lift(lifted, grad[rows], q * p, name, seed, distribution, offset, p, threads, backend)
        matrix = lifted.view(-1, q, p)
        to_x[rows] = (d[rows].float() @ matrix).to(x.dtype)
        to_d[rows] = (x[rows].float() @ matrix.mT).to(d.dtype)
    if lengths is not None:
        past = (torch.arange(t, device=x.device) >= lengths.to(x.device)[:, None])[..., None]
        to_x.masked_fill_(past, 0), to_d.masked_fill_(past, 0)
    return to_x, to_d


_ROWS = torch.contiguous_format


def _compiled(
    name: str, seed: int, dim: int, distribution: str, threads: int | None, backend: str | None
) -> dict[str, Any]:
    """Which P, and by what, for the compiled kernels."""
    return {
        "key": philox_key(name, seed),
        "scale": 1 / math.sqrt(dim),
        "distribution": distribution,
        "threads": thread_count(threads),
        "lanes": backend == "lanes",
    }


def _by_row(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The rows >= 0 of rows [n, t], ascending, and their tokens as `RowSketchArguments` has them.

    In shapes that do not depend on what the rows are, so that nothing waits for a GPU: those found come first, and the
    others, of which there may be up to n t, have no tokens.
    """
    ordered, token = rows.reshape(-1).to(torch.int64).sort(stable=True)
    first = ordered >= 0
    first[1:] &= ordered[1:] != ordered[:-1]
    place, count = first.cumsum(0) - 1, len(ordered)
    found = torch.zeros(count + 1, dtype=torch.int64, device=rows.device)
    found.scatter_(0, torch.where(place < 0, count, place), ordered)
    start = torch.searchsorted(place, torch.arange(count + 1, device=rows.device))
    return found[:count], start, token
