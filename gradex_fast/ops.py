"""The kernels as `torch.ops.gradex_fast`: what torch.compile, fake tensors, autograd and vmap see of them.

A schema's arguments are tensors, then the columns of the output, then which P, and by what. `threads` stays
None in a graph: the number is asked for when the graph runs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from gradex_fast import backends
from gradex_fast.regression import SubsetSolver

_library = torch.library.Library("gradex_fast", "FRAGMENT")
"""`torch.library.custom_op` asks for less, but a call of its operators costs several times as much, and the first one
imports torch._dynamo, which takes seconds."""


def _define(name: str, schema: str, work: Callable, fake: Callable) -> Any:
    """torch.ops.gradex_fast.<name>, which mutates nothing and returns new arrays."""
    _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, work, "CompositeExplicitAutograd")
    torch.library.register_fake(f"gradex_fast::{name}", fake, lib=_library)
    return getattr(torch.ops.gradex_fast, name).default


def _define_kernel(name: str, tensors: int, arguments: str) -> Any:
    """The operator of a backend that fills float32 [samples, columns], sample by sample of all its tensors."""
    fill = getattr(backends, name)

    def work(*arguments: Any) -> torch.Tensor:
        first, columns = arguments[0], arguments[tensors]
        total = torch.zeros(len(first), columns, dtype=torch.float32, device=first.device)
        fill(total, *arguments)
        return total

    def fake(*arguments: Any) -> torch.Tensor:
        return arguments[0].new_empty(arguments[0].shape[0], arguments[tensors], dtype=torch.float32)

    def batched(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[torch.Tensor, int]:
        """Samples of all batches are samples of one call: none depends on another."""
        moved = [
            a if a is None else a.expand(info.batch_size, *a.shape) if place is None else a.movedim(place, 0)
            for a, place in zip(arguments[:tensors], in_dims, strict=False)
        ]
        folded = [a if a is None else a.flatten(0, 1) for a in moved]
        return op(*folded, *arguments[tensors:]).unflatten(0, moved[0].shape[:2]), 0

    op = _define(name, f"({arguments}) -> Tensor", work, fake)
    if hasattr(torch.library, "register_vmap"):  # torch 2.5
        torch.library.register_vmap(f"gradex_fast::{name}", batched, lib=_library)
    return op


def _differentiate(name: str, backward: Callable, keep: Callable | None = None) -> None:
    torch.library.register_autograd(f"gradex_fast::{name}", backward, setup_context=keep, lib=_library)


_P = "str name, SymInt seed, str distribution"
_BY = "int? threads, str? backend"
_SKETCH = f"Tensor inputs, Tensor grads, Tensor? lengths, SymInt dim, {_P}, SymInt offset, {_BY}"
_sketch = _define_kernel("sketch", 3, _SKETCH)
_project = _define_kernel("project", 1, f"Tensor rows, SymInt dim, {_P}, SymInt offset, SymInt width, {_BY}")
_sketch_rows = _define_kernel("sketch_rows", 2, f"Tensor values, Tensor rows, SymInt dim, {_P}, {_BY}")
_lift = _define_kernel("lift", 1, f"Tensor weights, SymInt size, {_P}, SymInt offset, SymInt width, {_BY}")


def _fake_backward(grad: torch.Tensor, x: torch.Tensor, d: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(x.shape), d.new_empty(d.shape)


_sketch_backward = _define(
    "sketch_backward", f"(Tensor grad, {_SKETCH}) -> (Tensor, Tensor)", backends.sketch_backward, _fake_backward
)


def _keep_factors(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.plan = inputs[3:]


def _to_factors(ctx: Any, gradient: torch.Tensor) -> tuple:
    return *_sketch_backward(gradient, *ctx.saved_tensors, *ctx.plan), None, *(None for _ in ctx.plan)


def _keep_columns(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    given, _, *ctx.plan = inputs
    ctx.columns, ctx.dtype = given.shape[1], given.dtype


def _to_given(adjoint: Callable, ctx: Any, gradient: torch.Tensor) -> tuple:
    """Of a linear kernel(tensor, columns, *plan): adjoint(gradient, the tensor's columns, *plan)."""
    return adjoint(gradient, ctx.columns, *ctx.plan).to(ctx.dtype), None, *(None for _ in ctx.plan)


def _no_gradient(ctx: Any, *gradients: torch.Tensor) -> None:
    raise NotImplementedError("sketch_rows has no gradient: detach its values, or sketch one-hot rows with `sketch`")


_differentiate("sketch", _to_factors, _keep_factors)
_differentiate("project", partial(_to_given, _lift), _keep_columns)
_differentiate("lift", partial(_to_given, _project), _keep_columns)
_differentiate("sketch_rows", _no_gradient)


def _work_solve(features, margins, group_ptr, subsets, weights, l2, divisor, always, tol, max_iterations, threads):
    solver = SubsetSolver(features, margins, group_ptr, weights=weights, divisor=divisor, threads=threads)
    limits = {"tol": tol, "max_iterations": max_iterations, "threads": threads}
    found = solver.solve(subsets, l2=l2, always=always, **limits)
    return found.x, found.loss, found.gradient_norm, found.iterations, found.status


def _fake_solve(features, margins, group_ptr, subsets, *_):
    m, d = subsets.shape[0], features.shape[-1]
    fits = margins.shape == features.shape[:1] and subsets.shape[1:] == (group_ptr.shape[0] - 1,)
    if features.ndim != 2 or not fits:
        shapes = [tuple(array.shape) for array in (features, margins, group_ptr, subsets)]
        raise ValueError(f"features [N, d], margins [N], group_ptr [n + 1], subsets [m, n] do not fit: {shapes}")
    number, count = {"dtype": torch.float64}, {"dtype": torch.int32}
    made = features.new_empty
    return made(m, d, **number), made(m, **number), made(m, **number), made(m, **count), made(m, **count)


_solve = _define(
    "solve",
    "(Tensor features, Tensor margins, Tensor group_ptr, Tensor subsets, Tensor? weights, float l2, float? divisor, "
    "SymInt[]? always, float tol, int max_iterations, int? threads) "
    "-> (Tensor x, Tensor loss, Tensor gradient_norm, Tensor iterations, Tensor status)",
    _work_solve,
    _fake_solve,
)

OPERATORS = {"sketch": _sketch, "project": _project, "sketch_rows": _sketch_rows, "lift": _lift, "solve": _solve}
