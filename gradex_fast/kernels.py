"""The kernels for library authors: sketch, project, lift, solve. Needs torch and NumPy only.

Arrays are torch tensors, NumPy arrays (read-only ones too) or what DLPack can exchange (JAX, CuPy, ...), on the CPU or
a CUDA device, of any real type. Outputs live where the first input lives: a tensor on its device for a tensor, a NumPy
array for a NumPy array or a list, a tensor for all else. Shapes are checked once, here; then the work goes to the CUDA,
CPU or reference backend, or to torch's operator of the same name (`ops.py`) where torch has to see the call: under
torch.compile or vmap, with fake or meta tensors, and where autograd records. `project`, `lift` and `sketch` have
gradients in backward(), not in torch.func.grad; `out` is never recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from gradex_fast import backends, ops
from gradex_fast.arguments import (
    DISTRIBUTIONS,
    check_elements,
    check_lines,
    check_place,
    check_plan,
    lengths_of,
    output_of,
)
from gradex_fast.arrays import Array, described, is_array, like, tensor_of
from gradex_fast.dispatch import dispatched, word
from gradex_fast.regression import (
    Neighbour,
    NeighbourSearch,
    Solutions,
    Status,
    SubsetSolver,
    mean_losses,
    row_losses,
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
    check_elements(offset, x.shape[2] * d.shape[2])
    length = None if lengths is None else lengths_of(lengths, x)
    total = _added("sketch", (x, d, length), (dim, name, word(seed), distribution, word(offset), threads, backend), out)
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
    x = tensor_of(rows)
    if x.ndim != 2:
        raise ValueError(f"rows must be [n, p], got {tuple(x.shape)}")
    width = max(1, x.shape[1]) if width is None else width
    check_plan(dim, distribution, offset, threads)
    check_place(x.device, backend)
    check_lines(distribution, width, offset, x.shape[1])
    check_elements(offset, x.shape[1])
    total = _added("project", (x,), (dim, name, word(seed), distribution, word(offset), width, threads, backend), out)
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
    total = _added("sketch_rows", (value, row), (dim, name, word(seed), distribution, threads, backend), out)
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
    w = tensor_of(weights)
    if w.ndim != 2:
        raise ValueError(f"weights must be [m, dim], got {tuple(w.shape)}")
    check_plan(w.shape[1], distribution, offset, threads)
    check_place(w.device, backend)
    if size < 0:
        raise ValueError(f"size must be 0 or more, got {size}")
    width = max(1, size) if width is None else width
    check_lines(distribution, width, offset, size)
    check_elements(offset, size)
    out = _added("lift", (w,), (size, name, word(seed), distribution, word(offset), width, threads, backend), None)
    return like(out, weights)


def solve(
    features: Array,
    margins: Array,
    group_ptr: Array | Sequence[int],
    subsets: Array | Sequence[Sequence[int]],
    *,
    l2: float,
    weights: Array | None = None,
    divisor: float | None = None,
    always: Sequence[int] | None = None,
    tol: float = 1e-6,
    max_iterations: int = 500,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Solutions:
    """`SubsetSolver(...).solve(...)` in one call: see there.

    In a compiled graph, or with fake tensors, `subsets` must be a mask, there is no `progress`, and the losses are
    worked out at once. No gradient flows to the features. A `SubsetSolver` has a state and stays outside of graphs.
    """
    options = {"tol": tol, "max_iterations": max_iterations, "threads": threads}
    seen = [tensor_of(array) for array in (features, margins, group_ptr, subsets) if is_array(array)]
    if not dispatched(*seen, differentiable=False):
        solver = SubsetSolver(features, margins, group_ptr, weights=weights, divisor=divisor, threads=threads)
        return solver.solve(subsets, l2=l2, always=always, progress=progress, **options)
    if progress is not None or not is_array(subsets):
        raise ValueError("in a graph, subsets must be a mask [m, n], and there is no progress")
    tensors = [tensor_of(array).detach() for array in (features, margins, group_ptr, subsets)]
    weight = None if weights is None else tensor_of(weights).detach()
    known = None if always is None else list(always)
    x, loss, norm, *ended = ops.OPERATORS["solve"](*tensors, weight, l2, divisor, known, tol, max_iterations, threads)
    return Solutions(x, *ended, lambda: (loss, norm))


def _added(kernel: str, tensors: tuple[torch.Tensor | None, ...], plan: tuple, out: Array | None) -> torch.Tensor:
    """What a kernel adds to `out`, or to nothing: by torch's operator where somebody looks, else by the backend."""
    first, (columns, *_) = tensors[0], plan
    if not dispatched(*tensors, differentiable=out is None):
        total = output_of(out, first, columns)
        getattr(backends, kernel)(total, *tensors, *plan)
        return total
    if out is None:
        return ops.OPERATORS[kernel](*tensors, *plan)
    with torch.no_grad():
        return output_of(out, first, columns).add_(ops.OPERATORS[kernel](*tensors, *plan))
