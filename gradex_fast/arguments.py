"""What the kernels are given: arrays of either library, and the checks that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch

from gradex_fast.reference.projection import DISTRIBUTIONS

Array = TypeVar("Array", torch.Tensor, np.ndarray)
HOSTS = {None: ("cpu", "cuda"), "cpu": ("cpu",), "cuda": ("cuda",), "lanes": ("cpu",)}
"""Where the tensors are that a backend reads; the reference reads all."""

BACKENDS = (*HOSTS, "reference")


def check_plan(dim: int, distribution: str, offset: int, threads: int | None) -> None:
    if dim < 1:
        raise ValueError(f"dim must be 1 or more, got {dim}")
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"distribution must be one of {DISTRIBUTIONS}, got {distribution!r}")
    if offset < 0:
        raise ValueError(f"offset must be 0 or more, got {offset}")
    thread_count(threads)


def check_place(device: torch.device, backend: str | None) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if backend != "reference" and device.type not in HOSTS[backend]:
        raise ValueError(f"backend {backend!r} cannot read tensors on {device}; move them or let it be None")


def check_lines(distribution: str, width: int, offset: int, size: int = 0) -> None:
    if width < 1:
        raise ValueError(f"width must be 1 or more, got {width}")
    for what, elements in {"offset": offset, "size": size}.items():
        if distribution == "tensorsketch" and elements % width:
            raise ValueError(f"{what} must be whole lines of {width} elements for {distribution!r}, got {elements}")


def checked_lengths(lengths: Array | Sequence[int], x: torch.Tensor) -> torch.Tensor:
    """Those on a GPU are not looked at, which would wait for it: its kernels take them as at most t."""
    tensor = torch.as_tensor(lengths, dtype=torch.int64, device=None if isinstance(lengths, torch.Tensor) else "cpu")
    seen = not tensor.is_cuda and len(tensor) > 0
    if tensor.shape != x.shape[:1] or (seen and not 0 <= int(tensor.min()) <= int(tensor.max()) <= x.shape[1]):
        raise ValueError(f"lengths must be {x.shape[0]} numbers from 0 to {x.shape[1]}")
    return tensor


def output_of(out: Array | None, x: torch.Tensor, dim: int) -> torch.Tensor:
    """float32 [len(x), dim] to add to."""
    total = torch.zeros(len(x), dim, dtype=torch.float32, device=x.device) if out is None else tensor_of(out)
    wanted = torch.float32, (len(x), dim), x.device
    if (total.dtype, total.shape, total.device) != wanted or not total.is_contiguous():
        raise ValueError(f"out must be contiguous float32 [{len(x)}, {dim}] on {x.device}, got {described(total)}")
    return total


def tensor_of(array: Array) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(np.asarray(array))


def like(tensor: torch.Tensor, example: Array) -> Array:
    return tensor if isinstance(example, torch.Tensor) else tensor.cpu().numpy()


def described(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"


def array_of(array: Array | Sequence) -> np.ndarray:
    if not isinstance(array, torch.Tensor):
        return np.asarray(array)
    return (array.float() if array.dtype == torch.bfloat16 else array).detach().cpu().numpy()


def thread_count(threads: int | None) -> int:
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, got {threads}")
    return threads or torch.get_num_threads()
