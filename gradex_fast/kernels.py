"""The kernels for library authors: sketch, project, lift, solve. Needs torch and NumPy only.

Arrays are torch tensors or NumPy arrays, on the CPU or a CUDA device; outputs live where the inputs live. Shapes are
checked once, here; then the work goes to the CUDA, CPU or reference backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from gradex_fast import native, tensorsketch
from gradex_fast.reference.gaussian import key as philox_key
from gradex_fast.reference.lift import lift as reference_lift
from gradex_fast.reference.projection import DISTRIBUTIONS
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

Array = TypeVar("Array", torch.Tensor, np.ndarray)
BACKENDS = (None, "cpu", "cuda", "reference")


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
        lengths: [n], tokens of each sample; later ones are not read. None: all t.
        out: float32 [n, dim] to add to; None starts from zero.
        threads: CPU threads (None: torch's number); the result's bits do not depend on it. "tensorsketch" is torch's
            work and always has torch's number.
        backend: None picks by device; "reference" is the float64 specification.

    Returns:
        float32 [n, dim].

    Raises:
        ValueError: shapes, devices, distribution, offset or backend do not fit; the message names them.
        NotImplementedError: the backend has no code for the distribution.
    """
    _check_plan(dim, distribution, offset, threads)
    x, d = _tensor(inputs), _tensor(grads)
    _check_place(x.device, backend)
    if x.ndim != 3 or d.ndim != 3 or x.shape[:2] != d.shape[:2] or x.device != d.device:
        raise ValueError(
            f"inputs [n, t, p] and grads [n, t, q] must share n, t and device: {_describe(x)} and {_describe(d)}"
        )
    _check_lines(distribution, max(1, x.shape[2]), offset)
    length = None if lengths is None else _lengths(lengths, x)
    total = _output(out, x, dim)
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
        plan = {
            "key": philox_key(name, seed),
            "offset": offset,
            "scale": 1 / math.sqrt(dim),
            "distribution": distribution,
        }
        native.sketch(total, x, d, length, threads=threads or torch.get_num_threads(), **plan)
    return _like(total, inputs)


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
    x = _tensor(rows)
    out = None if out is None else _tensor(out)
    plan = {"name": name, "seed": seed, "dim": dim, "distribution": distribution, "offset": offset}
    if distribution == "tensorsketch":
        total = _project_lines(x, out, width=width, threads=threads, backend=backend, **plan)
    else:
        ones = torch.ones(len(x), 1, 1, device=x.device)
        total = sketch(x[:, None, :], ones, out=out, threads=threads, backend=backend, **plan)
    return _like(total, rows)


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
    _check_plan(dim, distribution, 0, threads)
    value, row = _tensor(values), _tensor(rows)
    _check_place(value.device, backend)
    if value.ndim != 3 or row.shape != value.shape[:2] or row.device != value.device or row.is_floating_point():
        raise ValueError(f"values [n, t, w] and rows [n, t] do not fit: {_describe(value)} and {_describe(row)}")
    total = _output(out, value, dim)
    plan = {"name": name, "seed": seed, "dim": dim, "distribution": distribution}
    if backend == "reference":
        exact = reference_sketch_rows(value.detach().double().cpu().numpy(), row.cpu().numpy(), **plan)
        total += torch.from_numpy(exact).to(total)
    elif not value.numel():
        pass
    elif distribution == "tensorsketch":
        tensorsketch.sketch_rows(total, value, row, key=philox_key(name, seed))
    elif value.is_cuda:
        for index in row[row >= 0].unique().tolist():  # until there is a kernel: exact, but a launch for each row
            hits = (row == index).to(value.dtype)[:, :, None]
            sketch(value, hits, offset=index * value.shape[2], out=total, **plan)
    else:
        token = torch.argsort(row.reshape(-1), stable=True)
        found, counts = row.reshape(-1)[token].unique_consecutive(return_counts=True)
        start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        skipped = int((found < 0).sum())
        looked_up = found[skipped:].to(torch.int64).contiguous(), start[skipped:].contiguous(), token
        options = {"key": philox_key(name, seed), "scale": 1 / math.sqrt(dim), "distribution": distribution}
        if len(looked_up[0]):
            native.sketch_rows(total, value, *looked_up, threads=threads or torch.get_num_threads(), **options)
    return _like(total, values)


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
    w = _tensor(weights)
    dim = w.shape[1]
    _check_plan(dim, distribution, offset, threads)
    _check_place(w.device, backend)
    if size < 0:
        raise ValueError(f"size must be 0 or more, got {size}")
    width = max(1, size) if width is None else width
    _check_lines(distribution, width, offset, size)
    out = torch.zeros(len(w), size, dtype=torch.float32, device=w.device)
    if backend == "reference":
        plan = {"name": name, "seed": seed, "offset": offset, "distribution": distribution, "width": width}
        out = torch.from_numpy(reference_lift(w.detach().double().cpu().numpy(), size, **plan)).to(out)
    elif not out.numel():
        pass
    elif distribution == "tensorsketch":
        tensorsketch.lift(out, w, key=philox_key(name, seed), offset=offset, width=width)
    else:
        plan = {
            "key": philox_key(name, seed),
            "offset": offset,
            "scale": 1 / math.sqrt(dim),
            "distribution": distribution,
        }
        native.lift(out, w.detach(), threads=threads or torch.get_num_threads(), **plan)
    return _like(out, weights)


def _project_lines(
    rows: torch.Tensor,
    out: torch.Tensor | None,
    *,
    name: str,
    seed: int,
    dim: int,
    distribution: str,
    offset: int,
    width: int | None,
    threads: int | None,
    backend: str | None,
) -> torch.Tensor:
    """`project` for a distribution that a single line of inputs cannot stand for."""
    width = max(1, rows.shape[1]) if width is None else width
    _check_plan(dim, distribution, offset, threads)
    _check_place(rows.device, backend)
    _check_lines(distribution, width, offset, rows.shape[1])
    total = _output(out, rows, dim)
    if backend == "reference":
        plan = {"name": name, "seed": seed, "dim": dim, "offset": offset, "distribution": distribution, "width": width}
        total += torch.from_numpy(reference_project(rows.detach().double().cpu().numpy(), **plan)).to(total)
    elif rows.numel():
        tensorsketch.project(total, rows, key=philox_key(name, seed), offset=offset, width=width)
    return total


def _check_plan(dim: int, distribution: str, offset: int, threads: int | None) -> None:
    if dim < 1:
        raise ValueError(f"dim must be 1 or more, got {dim}")
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"distribution must be one of {DISTRIBUTIONS}, got {distribution!r}")
    if offset < 0:
        raise ValueError(f"offset must be 0 or more, got {offset}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, got {threads}")


def _check_place(device: torch.device, backend: str | None) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if backend != "reference" and device.type not in ((backend,) if backend else ("cpu", "cuda")):
        raise ValueError(f"backend {backend!r} cannot read tensors on {device}; move them or let it be None")


def _check_lines(distribution: str, width: int, offset: int, size: int = 0) -> None:
    if width < 1:
        raise ValueError(f"width must be 1 or more, got {width}")
    for what, elements in {"offset": offset, "size": size}.items():
        if distribution == "tensorsketch" and elements % width:
            raise ValueError(f"{what} must be whole lines of {width} elements for {distribution!r}, got {elements}")


def _lengths(lengths: Array | Sequence[int], x: torch.Tensor) -> torch.Tensor:
    tensor = torch.as_tensor(lengths, dtype=torch.int64, device=None if isinstance(lengths, torch.Tensor) else "cpu")
    if tensor.shape != x.shape[:1] or (len(tensor) and not 0 <= int(tensor.min()) <= int(tensor.max()) <= x.shape[1]):
        raise ValueError(f"lengths must be {x.shape[0]} numbers from 0 to {x.shape[1]}")
    return tensor


def _output(out: Array | None, x: torch.Tensor, dim: int) -> torch.Tensor:
    """float32 [len(x), dim] to add to."""
    total = torch.zeros(len(x), dim, dtype=torch.float32, device=x.device) if out is None else _tensor(out)
    wanted = torch.float32, (len(x), dim), x.device
    if (total.dtype, total.shape, total.device) != wanted or not total.is_contiguous():
        raise ValueError(f"out must be contiguous float32 [{len(x)}, {dim}] on {x.device}, got {_describe(total)}")
    return total


def _tensor(array: Array) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(np.asarray(array))


def _like(tensor: torch.Tensor, example: Array) -> Array:
    return tensor if isinstance(example, torch.Tensor) else tensor.cpu().numpy()


def _describe(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
