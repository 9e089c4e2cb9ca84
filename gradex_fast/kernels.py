"""The kernels for library authors: sketch, project, lift, solve. Needs torch and NumPy only.

Arrays are torch tensors or NumPy arrays, on the CPU or a CUDA device; outputs live where the inputs live. Shapes are
checked once, here; then the work goes to the CUDA, CPU or reference backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from gradex_fast import native, tensorsketch
from gradex_fast.arguments import (
    DISTRIBUTIONS,
    Array,
    check_lines,
    check_place,
    check_plan,
    checked_lengths,
    described,
    like,
    output_of,
    tensor_of,
    thread_count,
)
from gradex_fast.reference.gaussian import key as philox_key
from gradex_fast.reference.lift import lift as reference_lift
from gradex_fast.reference.sketch import project as reference_project
from gradex_fast.reference.sketch import sketch as reference_sketch
from gradex_fast.reference.sketch import sketch_rows as reference_sketch_rows
from gradex_fast.regression import (
    Neighbour,
    NeighbourSearch,
    Solutions,
    Status,
    SubsetSolver,
    mean_losses,
    row_losses,
    solve,
    subset_masks,
)

__all__ = [
    "DISTRIBUTIONS",
    "Neighbour",
    "NeighbourSearch",
    "Solutions",
    "Status",
    "SubsetSolver",
    "lift",
    "mean_losses",
    "project",
    "row_losses",
    "sketch",
    "sketch_rows",
    "solve",
    "subset_masks",
]


def sketch(
    inputs: Array,
    grads: Array,
    *,
    name: str,
    seed: int,
    dim: int,
    distribution: str = "gaussian",
    lengths: Array | Sequence[int] | None = None,
    offset: int = 0,
    out: Array | None = None,
    threads: int | None = None,
    backend: str | None = None,
) -> Array:
    """Per-sample gradients of one linear layer, projected without ever being formed (DESIGN §2).

    Row i of the result is Pᵀ vec(Σ_t grads[i, t] ⊗ inputs[i, t]) / √dim; P's element index is
    offset + output · p + input, the row-major order of a torch Linear's weight. The mean of ⟨sketch(a), sketch(b)⟩
    over seeds is ⟨a, b⟩. The distribution of P's entries decides the cost and the spread:

    - "gaussian": normals, variance (|a|²|b|² + ⟨a, b⟩²) / dim whatever the gradients are. The default; LoRA adapters.
    - "rademacher": ±1, a 32nd of the Philox calls, variance lower by 2 Σ a_j² b_j² / dim. Full-parameter models.
    - "tensorsketch": hashes of inputs and outputs, no P at all (its columns depend on dim and p, and it has no 1/√dim):
      costs a look at the factors, whatever p · q is. The same spread where a gradient is a sum of many different
      terms; up to 3 times the variance where it is one term d ⊗ x, as a classifier's may be. Large full-parameter
      models, large dim. Equal for every batch to within rounding, not to the bit.

    Args:
        inputs: [n, t, p], what the layer was given: float32, bfloat16, float16 (float64 is rounded).
        grads: [n, t, q], the gradient of its output.
        name, seed: which P; the same on every device, for every n and t.
        lengths: [n], tokens of each sample; later ones are not read. None: all t. The result's bits depend neither on
            the other samples nor on t, but on a GPU where one side has a single feature on whether t is 1.
        out: float32 [n, dim] to add to; None starts from zero.
        threads: CPU threads (None: torch's number); the result's bits do not depend on it. "tensorsketch" is torch's
            work and always has torch's number.
        backend: None picks by device; "reference" is the float64 specification; "lanes" runs the GPU's kernels on
            the CPU, a lane after another: slow, to test them without a GPU.

    Returns:
        float32 [n, dim].

    Raises:
        ValueError: shapes, devices, distribution, offset or backend do not fit; the message names them.
    """
    check_plan(dim, distribution, offset, threads)
    x, d = tensor_of(inputs), tensor_of(grads)
    check_place(x.device, backend)
    if x.ndim != 3 or d.ndim != 3 or x.shape[:2] != d.shape[:2] or x.device != d.device:
        raise ValueError(
            f"inputs [n, t, p] and grads [n, t, q] must share n, t and device: {described(x)} and {described(d)}"
        )
    check_lines(distribution, max(1, x.shape[2]), offset)
    length = None if lengths is None else checked_lengths(lengths, x)
    total = output_of(out, x, dim)
    if backend == "reference":
        kept = None if length is None else length.cpu().numpy()
        arrays = x.detach().double().cpu().numpy(), d.detach().double().cpu().numpy()
        plan = {"name": name, "seed": seed, "dim": dim, "offset": offset, "distribution": distribution}
        total += torch.from_numpy(reference_sketch(*arrays, lengths=kept, **plan)).to(total)
    elif not x.numel() or not d.numel():
        pass
    elif distribution == "tensorsketch":
        tensorsketch.sketch(total, x, d, length, key=philox_key(name, seed), offset=offset)
    else:
        plan = _compiled(name, seed, dim, distribution, threads, backend)
        native.sketch(total, x, d, length, offset=offset, **plan)
    return like(total, inputs)


def project(
    rows: Array,
    *,
    name: str,
    seed: int,
    dim: int,
    distribution: str = "gaussian",
    offset: int = 0,
    width: int | None = None,
    out: Array | None = None,
    threads: int | None = None,
    backend: str | None = None,
) -> Array:
    """Dense gradients times P: rows [n, p] · P[offset : offset + p] / √dim, float32 [n, dim].

    The same P as `sketch`'s for the same name and seed; other arguments and errors as there.

    Args:
        width: elements of one line of the parameter, its last dimension: `sketch`'s p (None: the row is one line).
            Only "tensorsketch" looks at it: a row and its offset must be whole lines.
    """
    if rows.ndim != 2:
        raise ValueError(f"rows must be [n, p], got {tuple(rows.shape)}")
    x, width = tensor_of(rows), max(1, rows.shape[1]) if width is None else width
    check_plan(dim, distribution, offset, threads)
    check_place(x.device, backend)
    check_lines(distribution, width, offset, x.shape[1])
    total = output_of(out, x, dim)
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
    return like(total, rows)


def sketch_rows(
    values: Array,
    rows: Array,
    *,
    name: str,
    seed: int,
    dim: int,
    distribution: str = "gaussian",
    out: Array | None = None,
    threads: int | None = None,
    backend: str | None = None,
) -> Array:
    """Per-sample gradients of a parameter that is looked up by rows, such as an embedding's weight, projected.

    Row i of the result is scale · Pᵀ vec(G_i) with G_i[r] = Σ_{t: rows[i, t] = r} values[i, t], for a parameter of
    lines of w. Only the rows of P that were looked up are made.

    Args:
        values: [n, t, w], the gradient of what was looked up. rows: int64 [n, t], which row; negative is none.
        The others, and what is raised, as in `sketch`.
    """
    check_plan(dim, distribution, 0, threads)
    value, row = tensor_of(values), tensor_of(rows)
    check_place(value.device, backend)
    if value.ndim != 3 or row.shape != value.shape[:2] or row.device != value.device or row.is_floating_point():
        raise ValueError(f"values [n, t, w] and rows [n, t] do not fit: {described(value)} and {described(row)}")
    total = output_of(out, value, dim)
    plan = {"name": name, "seed": seed, "dim": dim, "distribution": distribution}
    if backend == "reference":
        exact = reference_sketch_rows(value.detach().double().cpu().numpy(), row.cpu().numpy(), **plan)
        total += torch.from_numpy(exact).to(total)
    elif not value.numel():
        pass
    elif distribution == "tensorsketch":
        tensorsketch.sketch_rows(total, value, row, key=philox_key(name, seed))
    else:
        found, start, token = _by_row(row)
        plan = _compiled(name, seed, dim, distribution, threads, backend)
        if not (value.is_cuda or plan["lanes"]):
            found = found[: int((start[1:] > start[:-1]).sum())]
        if len(found):
            native.sketch_rows(total, value, found, start, token, **plan)
    return like(total, values)


def lift(
    weights: Array,
    size: int,
    *,
    name: str,
    seed: int,
    distribution: str = "gaussian",
    offset: int = 0,
    width: int | None = None,
    threads: int | None = None,
    backend: str | None = None,
) -> Array:
    """The adjoint of `project`: weights [m, dim] · P[offset : offset + size]ᵀ / √dim, float32 [m, size].

    ⟨project(g), w⟩ = ⟨g, lift(w)⟩ for every g and w, with the same `width`. Raises as `sketch` does.
    """
    if weights.ndim != 2:
        raise ValueError(f"weights must be [m, dim], got {tuple(weights.shape)}")
    w = tensor_of(weights)
    dim = w.shape[1]
    check_plan(dim, distribution, offset, threads)
    check_place(w.device, backend)
    if size < 0:
        raise ValueError(f"size must be 0 or more, got {size}")
    width = max(1, size) if width is None else width
    check_lines(distribution, width, offset, size)
    out = torch.zeros(len(w), size, dtype=torch.float32, device=w.device)
    if backend == "reference":
        plan = {"name": name, "seed": seed, "offset": offset, "distribution": distribution, "width": width}
        out = torch.from_numpy(reference_lift(w.detach().double().cpu().numpy(), size, **plan)).to(out)
    elif not out.numel():
        pass
    elif distribution == "tensorsketch":
        tensorsketch.lift(out, w, key=philox_key(name, seed), offset=offset, width=width)
    else:
        plan = _compiled(name, seed, dim, distribution, threads, backend)
        native.lift(out, w.detach(), offset=offset, **plan)
    return like(out, weights)


def _compiled(
    name: str, seed: int, dim: int, distribution: str, threads: int | None, backend: str | None
) -> dict[str, Any]:
    """Which P, and by what, for the compiled kernels."""
    p = {"key": philox_key(name, seed), "scale": 1 / math.sqrt(dim), "distribution": distribution}
    return {**p, "threads": thread_count(threads), "lanes": backend == "lanes"}


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
