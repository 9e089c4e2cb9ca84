"""Subset regressions: the minimiser x_S of every subset of groups, and the losses of other rows there.

Part of `gradex_fast.kernels`, where its names are public.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache, partial

import numpy as np

from gradex_fast import native
from gradex_fast.arguments import thread_count
from gradex_fast.arrays import Array, array_of, device_of, is_array, placed

_log = logging.getLogger(__name__)


class Status(IntEnum):
    """How a subset's solve ended."""

    CONVERGED = 0
    ITERATION_LIMIT = 1
    STALLED = 2
    NOT_FINITE = 3
    EMPTY = 4


@dataclass(frozen=True, eq=False)
class Solutions:
    """Minimisers of m subset regressions; arrays of the kind, and on the device, of the solver's features.

    Attributes:
        x: float64 [m, d].
        iterations: int32 [m], steps.
        status: int32 [m], see `Status`.
    """

    x: Array
    iterations: Array
    status: Array
    _losses: Callable[[], tuple[Array, Array]] = field(repr=False)
    """Worked out in float64 when it is first asked for: the solver does without, and most callers too."""

    @property
    def loss(self) -> Array:
        """float64 [m], F_S(x_S)."""
        return self._losses()[0]

    @property
    def gradient_norm(self) -> Array:
        """float64 [m], ‖∇F_S(x_S)‖."""
        return self._losses()[1]


class SubsetSolver:
    """Ridge logistic regressions over subsets of the groups of one data matrix (DESIGN §2, Estimate).

    Packs the matrix once for any number of `solve` calls, in the order of the instruction set in use: as much memory
    again, or twice as much where that has no bfloat16 products. Beyond `most_packed` the matrix stays the only copy, a
    memory map if it is one, and blocks of it are packed as they are read: the same results, later.

    Args:
        features: [N, d], rows g_i sorted by group; kept in float32.
        margins: [N], h_i. weights: [N], w_i ≥ 0; None is all one.
        group_ptr: [n + 1]; group t holds the rows group_ptr[t] ... group_ptr[t + 1] - 1.
        divisor: W > 0, of the sum over a subset's rows in F_S; None is the sum of their own weights.
        threads: None is torch's number. most_packed: bytes of packed copies that are kept, at most.

    Arrays are tensors on any device, NumPy or DLPack; the work is the CPU's, and results live where `features` does.

    Raises:
        ValueError: shapes do not fit, or the divisor is not positive.
    """

    def __init__(
        self,
        features: Array,
        margins: Array,
        group_ptr: Array | Sequence[int],
        *,
        weights: Array | None = None,
        divisor: float | None = None,
        threads: int | None = None,
        most_packed: int = 1 << 30,
    ) -> None:
        matrix, bias, pointer = array_of(features), array_of(margins), np.asarray(array_of(group_ptr), np.int64)
        if matrix.ndim != 2 or bias.shape != matrix.shape[:1]:
            raise ValueError(f"features [N, d] and margins [N] do not fit: {matrix.shape} and {bias.shape}")
        if len(pointer) < 1 or pointer[0] != 0 or pointer[-1] != len(matrix) or (np.diff(pointer) < 0).any():
            raise ValueError(f"group_ptr must rise from 0 to N = {len(matrix)}, got {pointer.tolist()[:8]}")
        weight = None if weights is None else array_of(weights)
        if weight is not None and (weight.shape != bias.shape or (weight < 0).any()):
            raise ValueError(f"weights must be {bias.shape} numbers >= 0")
        self.groups, self.dim = len(pointer) - 1, matrix.shape[1]
        if divisor is not None and not 0 < divisor < np.inf:
            raise ValueError(f"divisor must be a positive number, got {divisor}")
        options = {"divisor": divisor or 0.0, "most_packed": most_packed, "threads": thread_count(threads)}
        self._device = device_of(features)
        self._solver = native.SubsetSolver(matrix, bias, weight, pointer, **options)

    def solve(
        self,
        subsets: Array | Sequence[Sequence[int]],
        *,
        l2: float,
        always: Sequence[int] | None = None,
        tol: float = 1e-6,
        max_iterations: int = 500,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Solutions:
        """Minimise F_S(x) = Σ_{i∈S} w_i softplus(-(h_i + g_i·x)) / W + l2/2 ‖x‖² for every subset.

        W = Σ_{i∈S} w_i, or the solver's divisor.
        L-BFGS from near the minimum over all groups, with the inverse Hessian there as its initial matrix; where that
        does not do, Newton's in float64. A subset has converged where, by the Newton decrement,
        F_S(x) - min F_S ≤ tol · min(F_S(x), 100 (F_S(start) - min F_S)), so that at the default tol subsets are told
        apart to 1 % of their distance; or where ‖∇F_S(x)‖ ≤ tol² ‖∇F_S(0)‖ (there may be no minimum), or is rounding
        error. One that cannot be solved has a status, never an exception.

        Args:
            subsets: bool [m, n], or m lists of group indices. always: groups that are in every subset.
            progress: is called now and then with the number of subsets that are done; an exception that it raises,
                and Ctrl-C, stop the solve and go on to the caller.

        Raises:
            ValueError: shapes or indices do not fit, or l2 or tol is negative.
        """
        if not (l2 >= 0 and tol >= 0):
            raise ValueError(f"l2 and tol must be >= 0, got {l2} and {tol}")
        masks = subset_masks(subsets, self.groups)
        masks |= subset_masks([list(always or ())], self.groups)
        m = len(masks)
        outputs = np.zeros((m, self.dim)), np.zeros(m, np.int32), np.zeros(m, np.int32)
        limits = {"l2": l2, "tol": tol, "max_iterations": max_iterations, "threads": thread_count(threads)}
        exact = self._solver.solve(outputs, masks, progress=progress, **limits)
        _log.debug("%d of %d subset regressions needed float64", exact, m)
        losses = partial(self._losses, outputs[0], subsets=masks, l2=l2, threads=limits["threads"])
        return Solutions(*(placed(output, self._device) for output in outputs), cache(losses))

    def _losses(self, x: np.ndarray, **problems) -> tuple[Array, Array]:
        outputs = np.zeros(len(x)), np.zeros(len(x))
        self._solver.evaluate(outputs, x, **problems)
        return tuple(placed(output, self._device) for output in outputs)


@dataclass(frozen=True)
class Neighbour:
    """The best of some moves from a subset.

    Attributes:
        move: its position among the moves. loss: mean validation loss at its minimum x [d]. now: the same at the
            subset's own minimum. solved: how many moves were solved; the others could be ruled out.
    """

    move: int
    loss: float
    now: float
    solved: int
    x: np.ndarray


class NeighbourSearch:
    """Subsets that differ from one subset S by one group, against the mean loss of validation rows.

    All moves are looked at by one Newton step from x_S. Those whose error, as large as the margins' change and the
    steepest slope of the validation loss allow, leaves them in the race are solved; those that are still within the
    solves' error of one another are solved in float64. How far off the screening was is checked at every step against
    those that were solved, and sets how cautious it is. It remembers where it was: calls from several threads wait for
    one another, and are fast where each goes on from the last. Its results are NumPy arrays.

    Args:
        solver: over N training rows, which must be finite.
        features: [v, d], margins: [v], v ≥ 1: the validation rows, as `mean_losses` has them.
        l2: as in `SubsetSolver.solve`.

    Raises:
        ValueError: shapes do not fit, there is no validation row or one that is not finite, or d > `LARGEST_DIM`.
    """

    LARGEST_DIM = native.LARGEST_SEARCH_DIM

    def __init__(
        self, solver: SubsetSolver, features: Array, margins: Array, *, l2: float, threads: int | None = None
    ) -> None:
        matrix, bias = array_of(features), array_of(margins)
        if matrix.shape != (len(bias), solver.dim) or not len(bias):
            raise ValueError(f"features [v, {solver.dim}], margins [v], v >= 1: {matrix.shape}, {bias.shape}")
        if not (np.isfinite(matrix).all() and np.isfinite(bias).all()):
            raise ValueError("a validation row is not finite")
        if solver.dim > self.LARGEST_DIM:
            raise ValueError(f"a neighbour search takes at most {self.LARGEST_DIM} dimensions, got {solver.dim}")
        self.groups = solver.groups
        self._search = native.NeighbourSearch(solver._solver, matrix, bias, l2=l2, threads=thread_count(threads))

    def best(self, subset: Array | Sequence[int], moves: Sequence[int]) -> Neighbour:
        """The move of lowest loss, the first of equals; x = 0 where it leaves no rows.

        Args:
            subset: bool [n], or groups. moves: one or more groups, each to add if the subset lacks it, else to remove.
        """
        mask, groups = self._ready(subset, moves)
        if not len(groups):
            raise ValueError("no moves to choose from")
        return Neighbour(*self._search.best(mask, groups))

    def solve(self, subset: Array | Sequence[int], moves: Sequence[int]) -> np.ndarray:
        """The minimum after each of the moves: float64 [moves, d]."""
        return self._search.solve(*self._ready(subset, moves))

    def _ready(self, subset: Array | Sequence[int], moves: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        groups = np.asarray(moves, np.int64)
        subset_masks([groups], self.groups)
        return subset_masks(array_of(subset)[None] if is_array(subset) else [subset], self.groups)[0], groups


def mean_losses(x: Array, features: Array, margins: Array, *, threads: int | None = None) -> Array:
    """mean_v softplus(-(h_v + g_v·x)) at every x [m, d]: float64 [m], where x is. features [v, d], margins [v], v ≥ 1.

    Raises ValueError where shapes do not fit.
    """
    return placed(_losses(x, features, margins, threads, rows=False)[0], device_of(x))


def row_losses(x: Array, features: Array, margins: Array, *, threads: int | None = None) -> Array:
    """softplus(-(h_v + g_v·x)) of every row at every x [m, d]: float32 [m, v], where x is; otherwise as above."""
    return placed(_losses(x, features, margins, threads, rows=True)[1], device_of(x))


def _losses(x: Array, features: Array, margins: Array, threads: int | None, *, rows: bool) -> tuple:
    points, matrix, bias = array_of(x), array_of(features), array_of(margins)
    if points.ndim != 2 or matrix.ndim != 2 or matrix.shape != (len(bias), points.shape[1]):
        raise ValueError(f"x [m, d], features [v, d], margins [v]: {points.shape}, {matrix.shape}, {bias.shape}")
    mean = np.full(len(points), np.nan)
    each = np.zeros((len(points), len(bias)), np.float32) if rows else None
    if len(bias):
        native.losses(mean, each, points, matrix, bias, threads=thread_count(threads))
    return mean, each


def subset_masks(subsets: Array | Sequence[Sequence[int]], count: int) -> np.ndarray:
    """Subsets of `count` groups as a fresh bool [m, count], from a mask or from m lists of indices."""
    if is_array(subsets):
        masks = np.array(array_of(subsets))
        if masks.ndim != 2 or masks.shape[1] != count or masks.dtype not in (np.bool_, np.uint8):
            raise ValueError(f"subsets must be bool [m, {count}] or lists of indices, got {masks.dtype} {masks.shape}")
        return masks.astype(bool)
    masks = np.zeros((len(subsets), count), bool)
    for row, members in zip(masks, subsets, strict=True):
        chosen = np.asarray(members, np.int64)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= count):
            raise ValueError(f"a subset names groups {chosen.min()} to {chosen.max()}, but there are {count} groups")
        row[chosen] = True
    return masks
