"""Whether what is asked for can run here: looked at before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping

import psutil
import torch
from torch import nn

from gradex_fast import native
from gradex_fast.bench import pass_cases, solve_cases
from gradex_fast.bench.kernel_cases import LONGEST
from gradex_fast.bench.settings import BenchSettings
from gradex_fast.bench.shapes import layers_of
from gradex_fast.errors import GradexError
from gradex_fast.footprint import footprint
from gradex_fast.memory import available
from gradex_fast.model import position_limit
from gradex_fast.sections import ModelRecipe, SketchRecipe


def require_kernels(device: str) -> None:
    """Raises `GradexError` for a GPU without kernels."""
    if device == "cuda" and not native.CUDA_BUILT:
        raise GradexError("bench --device cuda: gradex_fast was built without CUDA; install it where nvcc is, or cpu")


def require_room(settings: BenchSettings, recipe: ModelRecipe | None, outline: nn.Module | None, device: str) -> None:
    """Raises `GradexError` naming the first part that memory or the model's positions cannot hold."""
    if recipe is not None:
        limit = position_limit(recipe)
        if "pass" in settings.parts and limit is not None and settings.tokens > limit:
            raise GradexError(f"bench --tokens {settings.tokens}: {settings.model!r} has {limit} positions")
    for part in settings.parts:
        if part == "pass":
            needed = pass_cases.needed_bytes(settings, footprint(recipe, SketchRecipe(dim=settings.dim)))
            _require(part, needed, device, "fewer --rows or --tokens, another --dtype or --model")
        elif part == "kernels":
            size = torch.bfloat16.itemsize if recipe.dtype == "bfloat16" else torch.float32.itemsize
            _require(part, _kernel_bytes(settings, outline, size), device, "fewer --rows or --tokens")
        else:
            needed = {"rows and solutions": solve_cases.needed_bytes(settings)}
            _require(part, needed, "cpu", "fewer --samples or --subsets, or a smaller --dim")


def _kernel_bytes(settings: BenchSettings, outline: nn.Module, size: int) -> dict[str, float]:
    """Two sets of the widest layer's tensors, or a long row for each sample."""
    widest = max((layer.p + layer.q for layer in layers_of(outline)[0] if layer.kind == "matrix"), default=0)
    tensors = 2.0 * settings.rows * settings.tokens * widest * size
    return {"tensors": max(tensors, 4.0 * settings.rows * LONGEST), "sketches": 8.0 * settings.rows * settings.dim}


def _require(part: str, needed: Mapping[str, float], device: str, less: str) -> None:
    free = psutil.virtual_memory().available if device == "cpu" else available(torch.device(device))
    if sum(needed.values()) <= free:
        return
    pieces = " + ".join(f"{size / 2**30:.1f} GiB of {name}" for name, size in needed.items())
    raise GradexError(
        f"bench: the part {part} needs about {pieces}, {free / 2**30:.1f} GiB are free; take {less}, or leave it out "
        "with --parts"
    )
