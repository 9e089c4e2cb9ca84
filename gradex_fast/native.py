"""The only importer of `_native`: contiguity, addresses, streams, device indices. No mathematics, no defaults."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

try:
    from gradex_fast import _native
except ImportError as error:
    raise ImportError(
        f"{Path(__file__).parent} has no built extension: run `pip install -e .` in this checkout, or leave its folder "
        f"so that Python finds the installed gradex_fast ({error})"
    ) from error

CUDA_BUILT: bool = _native.cuda
_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}

DISTRIBUTIONS = ("gaussian", "rademacher")
"""In the order of `csrc/distribution.h`."""

philox = _native.philox
instruction_sets = _native.instruction_sets
instruction_set = _native.instruction_set


def _share_torch_threads() -> bool:
    """Let kernels run on torch's team of threads (`csrc/parallel.h`), where its OpenMP runtime can be told."""
    try:
        loaded = set(re.findall(r"/\S*lib(?:gomp|iomp5|omp)\b\S*", Path("/proc/self/maps").read_text()))
        own = {path for path in loaded if path.startswith(str(Path(torch.__file__).parent))} or loaded
        if len(own) != 1:
            return False
        runtime = ctypes.CDLL(own.pop(), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        functions = (runtime.GOMP_parallel, runtime.omp_get_max_threads)
    except (OSError, AttributeError):
        return False
    _native.use_team(*(ctypes.cast(function, ctypes.c_void_p).value for function in functions))
    return True


SHARES_TORCH_THREADS = _share_torch_threads()


@contextmanager
def using_instruction_set(name: str):
    """Run the CPU kernels that were compiled for `name` (one of `instruction_sets()`), for tests and benchmarks."""
    before = instruction_set()
    _native.use_instruction_set(name)
    try:
        yield
    finally:
        _native.use_instruction_set(before)


def sketch(
    out: torch.Tensor,
    inputs: torch.Tensor,
    grads: torch.Tensor,
    lengths: torch.Tensor | None,
    *,
    key: int,
    offset: int,
    scale: float,
    distribution: str,
    threads: int,
    lanes: bool = False,
) -> None:
    """out [n, dim] += scale · sketch of inputs [n, t, p], grads [n, t, q]; `csrc/sketch.h` has the equation.

    `lanes`: by the GPU's kernels on the CPU.
    """
    inputs, grads = _ready(inputs), _ready(grads)
    lengths = lengths.to(device=out.device, dtype=torch.int64).contiguous() if lengths is not None else None
    (_, t, p), q = inputs.shape, grads.shape[2]
    addresses = (inputs.data_ptr(), grads.data_ptr(), _address(lengths))
    plan, _workspace = _plan(out, _workspace_of("sketch", out, lanes), (q, p), key, scale, distribution)
    types = (_TYPES[inputs.dtype], _TYPES[grads.dtype])
    _kernel("sketch", out, threads, lanes)(_native.SketchArguments(plan, addresses, (t, p, q), offset, types))


def sketch_rows(
    out: torch.Tensor,
    values: torch.Tensor,
    row: torch.Tensor,
    start: torch.Tensor,
    token: torch.Tensor,
    *,
    key: int,
    scale: float,
    distribution: str,
    threads: int,
    lanes: bool = False,
) -> None:
    """out [n, dim] += scale · sketch of values [n, t, w] added up by rows; `RowSketchArguments` has the indices."""
    values = _ready(values)
    _, t, width = values.shape
    addresses = (values.data_ptr(), row.data_ptr(), start.data_ptr(), token.data_ptr())
    size = _workspace_of("sketch_rows", out, lanes)
    plan, _workspace = _plan(out, size, (len(row), width), key, scale, distribution)
    arguments = _native.RowSketchArguments(plan, addresses, (t, width, len(row)), _TYPES[values.dtype])
    _kernel("sketch_rows", out, threads, lanes)(arguments)


def _kernel(name: str, out: torch.Tensor, threads: int, lanes: bool) -> Callable[[object], None]:
    """What runs a kernel's arguments where `out` is."""
    if lanes:
        return getattr(_native, f"{name}_lanes")
    if not out.is_cuda:
        run = getattr(_native, f"{name}_cpu")
        return lambda arguments: run(arguments, threads)
    run, queue = _cuda(f"{name}_cuda"), _queue(out)
    return lambda arguments: run(arguments, *queue)


def _workspace_of(name: str, out: torch.Tensor, lanes: bool) -> Callable[..., int]:
    """How many floats a sketch needs."""
    if lanes or out.is_cuda:
        return getattr(_native, f"{name}_device_workspace")
    return _native.sketch_cpu_workspace


def _plan(out: torch.Tensor, size: Callable, shape: tuple[int, int], key: int, scale: float, distribution: str):
    """A sketch's plan for a parameter [q, p], and the workspace that it points to: keep it as long."""
    choice = (tuple(out.shape), key, scale, DISTRIBUTIONS.index(distribution))
    floats = size(_native.SketchPlan(out.data_ptr(), 0, *choice), *shape)
    workspace = torch.empty(floats, dtype=torch.float32, device=out.device)
    return _native.SketchPlan(out.data_ptr(), workspace.data_ptr(), *choice), workspace


def lift(
    out: torch.Tensor,
    weights: torch.Tensor,
    *,
    key: int,
    offset: int,
    scale: float,
    distribution: str,
    threads: int,
    lanes: bool = False,
) -> None:
    """out [m, size] = scale · weights [m, dim] · Pᵀ."""
    weights = weights.to(torch.float32).contiguous()
    shape = (*out.shape, weights.shape[1])
    plan = (key, offset, scale, DISTRIBUTIONS.index(distribution))
    _kernel("lift", out, threads, lanes)(_native.LiftArguments(out.data_ptr(), weights.data_ptr(), shape, *plan))


class SubsetSolver:
    """`csrc/solve.h` over arrays that it keeps alive: features [N, d], margins [N], weights [N] or None, group_ptr."""

    def __init__(
        self,
        features: np.ndarray,
        margins: np.ndarray,
        weights: np.ndarray | None,
        group_ptr: np.ndarray,
        *,
        most_packed: int,
        divisor: float,
        threads: int,
    ) -> None:
        self._features = np.ascontiguousarray(features, np.float32)
        self._margins = np.ascontiguousarray(margins, np.float64)
        self._weights = None if weights is None else np.ascontiguousarray(weights, np.float64)
        self._group_ptr = np.ascontiguousarray(group_ptr, np.int64)
        inputs = [_data(array) for array in (self._features, self._margins, self._weights, self._group_ptr)]
        shape = *self._features.shape, len(self._group_ptr) - 1
        self._solver = _native.SubsetSolver(inputs, shape, most_packed, divisor, threads)

    def solve(
        self,
        outputs: tuple[np.ndarray, ...],
        subsets: np.ndarray,
        *,
        l2: float,
        tol: float,
        max_iterations: int,
        threads: int,
        progress: Callable[[int], object] | None,
        without: int = 0,
    ) -> int:
        """Fill outputs = (x, iterations, status), contiguous; `solve.h` has their dtypes.

        Returns how many of the subsets needed float64. `without`: see `SolvePart` there.
        """
        subsets = np.ascontiguousarray(subsets, np.uint8)
        limits = (l2, tol, max_iterations, threads, without)
        return self._solver.solve([_data(array) for array in outputs], _data(subsets), len(subsets), *limits, progress)

    def evaluate(self, outputs: tuple[np.ndarray, ...], x: np.ndarray, subsets: np.ndarray, *, l2: float, threads: int):
        """Fill outputs = (loss, gradient_norm), float64 [m], of every subset at its x [m, d]."""
        subsets, x = np.ascontiguousarray(subsets, np.uint8), np.ascontiguousarray(x, np.float64)
        addresses = [_data(array) for array in outputs]
        self._solver.evaluate(addresses, _data(x), _data(subsets), len(subsets), l2, threads)


LARGEST_SEARCH_DIM: int = _native.largest_search_dim


class NeighbourSearch:
    """`csrc/solve.h` over a solver and validation rows [v, d] with margins [v], which it keeps alive."""

    def __init__(
        self, solver: SubsetSolver, features: np.ndarray, margins: np.ndarray, *, l2: float, threads: int
    ) -> None:
        self._features = np.ascontiguousarray(features, np.float32)
        self._margins = np.ascontiguousarray(margins, np.float64)
        addresses = [_data(self._features), _data(self._margins)]
        self._solver, self._dim = solver, self._features.shape[1]
        self._search = solver._solver.neighbours(addresses, len(self._margins), l2, threads)

    def best(self, subset: np.ndarray, moves: np.ndarray) -> tuple[int, float, float, int, np.ndarray]:
        """(position in moves [count], its loss, the subset's, how many moves were solved, x [d])."""
        subset, moves, x = self._ready(subset, moves, 1)
        return *self._search.best(_data(x), _data(subset), _data(moves), len(moves)), x[0]

    def solve(self, subset: np.ndarray, moves: np.ndarray) -> np.ndarray:
        """x [count, d] of every move."""
        subset, moves, x = self._ready(subset, moves, len(moves))
        self._search.solve(_data(x), _data(subset), _data(moves), len(moves))
        return x

    def _ready(self, subset: np.ndarray, moves: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
        return (
            np.ascontiguousarray(subset, np.uint8),
            np.ascontiguousarray(moves, np.int64),
            np.zeros((count, self._dim)),
        )


def losses(
    mean: np.ndarray,
    losses: np.ndarray | None,
    x: np.ndarray,
    features: np.ndarray,
    margins: np.ndarray,
    *,
    threads: int,
) -> None:
    """Fill mean float64 [m] and losses float32 [m, v] of x [m, d]; `csrc/losses.h` has the equation."""
    x = np.ascontiguousarray(x, np.float64)
    features, margins = np.ascontiguousarray(features, np.float32), np.ascontiguousarray(margins, np.float64)
    inputs = [_data(array) for array in (x, features, margins)]
    _native.losses_cpu([_data(mean), _data(losses)], inputs, (len(x), *features.shape), threads)


def _data(array: np.ndarray | None) -> int:
    return 0 if array is None else array.ctypes.data


def _ready(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous tensor of a type that the kernels read; float64 is rounded to float32."""
    return (tensor if tensor.dtype in _TYPES else tensor.to(torch.float32)).detach().contiguous()


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _queue(tensor: torch.Tensor) -> tuple[int, int]:
    """The device index and the caller's current stream there."""
    return tensor.device.index, torch.cuda.current_stream(tensor.device).cuda_stream


def _cuda(name: str):
    if not CUDA_BUILT:
        raise RuntimeError("gradex_fast was built without CUDA: install it where nvcc is, or use CPU tensors")
    return getattr(_native, name)
