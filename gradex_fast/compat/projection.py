"""What the drop-in projectors share: gradients, flat or by parameter, times a P that is made anew where it is read."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from importlib import import_module
from typing import TypeVar

import torch

from gradex_fast import kernels

Gradients = torch.Tensor | Mapping[str, torch.Tensor]
"""[n, p], or by parameter [n, ...] in the order of P's elements."""

Choice = TypeVar("Choice", bound=Enum)

ROWS = 128
"""Of a batch on the CPU at a time: as many as share a tile of P (`csrc/tile_sketch.h`)."""


def projected(
    gradients: Gradients,
    *,
    size: int,
    dim: int,
    seed: int,
    which: int,
    distribution: str,
    device: torch.device | str,
) -> torch.Tensor:
    """gradients · P / √dim on `device`, float32 [n, dim]; read as they are, summed in float32.

    P is a function of (seed, which) and the element: the same on every device, for every batch, and for gradients given
    by parameter, which are not put together.

    Raises:
        ValueError: the gradients are not [n, size], or their parameters not of as many samples.
    """
    parts = flattened(gradients)
    check_width(sum(part.shape[1] for part in parts), size)
    out = torch.zeros(len(parts[0]), dim, dtype=torch.float32, device=device)
    plan = {"name": f"projector {int(which)}", "seed": int(seed), "dim": dim, "distribution": distribution}
    offset = 0
    for part in parts:
        step = max(1, len(part)) if out.is_cuda else ROWS
        for first in range(0, len(part), step):
            rows = slice(first, first + step)
            kernels.project(part[rows].to(out.device), offset=offset, out=out[rows], **plan)
        offset += part.shape[1]
    return out


def flattened(gradients: Gradients) -> list[torch.Tensor]:
    """[n, width] of every parameter; one number a sample may be [n]."""
    if isinstance(gradients, torch.Tensor):
        if gradients.ndim != 2:
            raise ValueError(f"gradients must be [n, p] or a dict by parameter, got a tensor {list(gradients.shape)}")
        return [gradients]
    counts = {name: len(each) if each.ndim else None for name, each in gradients.items()}
    if len(set(counts.values())) != 1 or None in counts.values():
        raise ValueError(f"gradients by parameter must be [n, ...] of the same n samples, got n = {counts}")
    return [each.flatten(1) if each.ndim > 1 else each[:, None] for each in gradients.values()]


def together(gradients: Gradients, device: torch.device | str) -> torch.Tensor:
    """[n, p] on `device`."""
    parts = [part.detach().to(device) for part in flattened(gradients)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def check_width(found: int, size: int) -> None:
    if found != size:
        raise ValueError(f"the gradients have {found:,} numbers a sample, the projector was made for {size:,}")


def check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, got {value}")


def checked_type(types: type[Choice], value: str | Enum) -> Choice:
    try:
        return types(value)
    except ValueError:
        raise ValueError(f"proj_type must be one of {[each.value for each in types]}, got {value!r}") from None


def register(module: str, projector: type) -> None:
    """Where another package is installed, `isinstance(ours, its AbstractProjector)` holds."""
    try:
        base = import_module(module).AbstractProjector
    except ImportError:
        return
    base.register(projector)
