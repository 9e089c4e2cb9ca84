"""Every kernel beside the float64 specification, on every place that has one: a second or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np

from gradex_fast.doctor.line import Line, first_line

LARGEST = 1e-4
"""Of the largest entry. Rounding is 1e-6 on a CPU and 1e-5 on a GPU's matrix unit; another P is wrong by 1."""

PLAN = {"name": "layer.weight", "seed": 7}
DIM = 20
LENGTHS = (5, 2, 0)


def kernel_lines(cuda: bool) -> Iterator[Line]:
    """One line for a place and a kernel. Raises ImportError where the extension or torch cannot be loaded."""
    from gradex_fast import native

    for name in native.instruction_sets():
        yield from _place(f"cpu, {name}", "cpu", native.using_instruction_set(name))
    if cuda:
        yield from _place("cuda", "cuda", nullcontext())


def _place(where: str, device: str, place: Any) -> Iterator[Line]:
    parts = {"sketch": _sketch, "sketch_rows": _sketch_rows, "project": _project, "lift": _lift}
    parts |= {} if device == "cuda" else {"solve": _solve}
    with place:
        for name, part in parts.items():
            yield _line(f"{name} ({where})", part, device)


def _line(name: str, part: Callable[[str], dict[str, float]], device: str) -> Line:
    again = "pip install --force-reinstall --no-deps -e . in the checkout, and report it if that does not help"
    if device == "cuda":
        again = f"GRADEX_CUDA=1 {again}; GRADEX_CUDA_ARCH must hold this GPU's compute capability"
    try:
        errors = part(device)
    except Exception as error:  # a kernel that cannot run is a line like any other
        return Line(name, first_line(error), "wrong", again)
    worst = max(errors, key=lambda case: np.nan_to_num(errors[case], nan=np.inf))
    if not errors[worst] <= LARGEST:
        return Line(name, f"{worst} is off by {errors[worst]:.1e} of its largest entry", "wrong", again)
    return Line(name, f"{len(errors)} cases, off by {errors[worst]:.0e} at most")


def _sketch(device: str) -> dict[str, float]:
    from gradex_fast import kernels

    def call(distribution: str, kind: Any, backend: str | None) -> Any:
        x, d = _random(3, 5, 33, kind=kind, device=device), _random(3, 5, 9, kind=kind, device=device)
        options = {"dim": DIM, "distribution": distribution, "lengths": LENGTHS, "backend": backend}
        return kernels.sketch(x, d, **PLAN, **options)

    return _errors(call)


def _sketch_rows(device: str) -> dict[str, float]:
    import torch

    from gradex_fast import kernels

    rows = torch.tensor([[0, 3, 3, -1, 7], [2, 2, 2, 2, 2], [-1, -1, -1, -1, 1]], device=device)

    def call(distribution: str, kind: Any, backend: str | None) -> Any:
        values = _random(3, 5, 33, kind=kind, device=device)
        return kernels.sketch_rows(values, rows, **PLAN, dim=DIM, distribution=distribution, backend=backend)

    return _errors(call)


def _project(device: str) -> dict[str, float]:
    from gradex_fast import kernels

    def call(distribution: str, kind: Any, backend: str | None) -> Any:
        rows = _random(3, 297, kind=kind, device=device)
        options = {"dim": DIM, "distribution": distribution, "offset": 66, "width": 33, "backend": backend}
        return kernels.project(rows, **PLAN, **options)

    return _errors(call)


def _lift(device: str) -> dict[str, float]:
    from gradex_fast import kernels

    def call(distribution: str, kind: Any, backend: str | None) -> Any:
        weights = _random(2, DIM, kind=kind, device=device)
        options = {"distribution": distribution, "offset": 66, "width": 33, "backend": backend}
        return kernels.lift(weights, 297, **PLAN, **options)

    return _errors(call)


def _errors(call: Callable[[str, Any, str | None], Any]) -> dict[str, float]:
    """By distribution and type, the largest difference from the reference in shares of its largest entry."""
    import torch

    from gradex_fast.kernels import DISTRIBUTIONS

    found = {}
    for distribution in DISTRIBUTIONS:
        for kind in (torch.float32, torch.bfloat16, torch.float16):
            exact, got = (call(distribution, kind, backend).double() for backend in ("reference", None))
            name = f"{distribution}, {str(kind).removeprefix('torch.')}"
            found[name] = float((got - exact).abs().max() / exact.abs().max())
    return found


def _solve(device: str) -> dict[str, float]:
    """Losses at the minimum, of several subsets at once, and the mean losses of other rows there."""
    from gradex_fast import kernels
    from gradex_fast.reference.solve import solve

    draw = np.random.default_rng(0)
    features, margins = draw.normal(size=(60, DIM)).astype(np.float32), draw.normal(size=60)
    pointer, subsets = np.arange(0, 61, 10), np.array([[0, 1, 0, 1, 1, 0], [1] * 6, [0, 0, 1, 0, 0, 0]], bool)
    exact, least = solve(features, margins, pointer, subsets, l2=1e-2)
    found = kernels.SubsetSolver(features, margins, pointer).solve(subsets, l2=1e-2, tol=1e-8)
    judged = kernels.mean_losses(exact, features, margins)
    expected = np.logaddexp(0, -(margins + exact @ features.T.astype(float))).mean(1)
    pairs = {"minimum": (found.loss, least), "losses": (judged, expected)}
    return {name: float(abs(np.asarray(got) - true).max() / abs(true).max()) for name, (got, true) in pairs.items()}


def _random(*shape: int, kind: Any, device: str) -> Any:
    import torch

    drawn = torch.from_numpy(np.random.default_rng(len(shape)).normal(size=shape))
    return drawn.to(device=device, dtype=kind)
