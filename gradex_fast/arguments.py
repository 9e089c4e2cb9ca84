"""What the kernels are given: the checks that all of them share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gradex_fast.arrays import Array, described, tensor_of
from gradex_fast.reference.projection import DISTRIBUTIONS

HOSTS = {None: ("cpu", "cuda", "meta"), "cpu": ("cpu",), "cuda": ("cuda",), "lanes": ("cpu",)}
"""Where the tensors are that a backend reads; the reference reads all. Of "meta" there are shapes only."""

BACKENDS = (*HOSTS, "reference")


def check_plan(dim: int, distribution: str, offset: int, threads: int | None) -> None:
    if dim < 1:
        raise ValueError(f"dim must be 1 or more, got {dim}")
    if distribution not in DISTRIBUTIONS:
        raise ValueError(f"distribution must be one of {DISTRIBUTIONS}, got {distribution!r}")
    if offset < 0:
        raise ValueError(f"offset must be 0 or more, got {offset}")
    check_threads(threads)


def check_threads(threads: int | None) -> None:
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, got {threads}")


def thread_count(threads: int | None) -> int:
    """What None means is asked when the work is done, not when a graph that holds it is made."""
    check_threads(threads)
    return threads or torch.get_num_threads()


def check_place(device: torch.device, backend: str | None) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    if backend != "reference" and device.type not in HOSTS[backend]:
        raise ValueError(f"backend {backend!r} cannot read tensors on {device}; move them or let it be None")


def check_elements(offset: int, size: int) -> None:
    """P's element indices are 64 bits wide."""
    if offset + size > 1 << 64:
        raise ValueError(f"offset + elements must be at most 2^64, got {offset} + {size}")


def check_lines(distribution: str, width: int, offset: int, size: int = 0) -> None:
    if width < 1:
        raise ValueError(f"width must be 1 or more, got {width}")
    if distribution == "tensorsketch":
        for what, elements in {"offset": offset, "size": size}.items():
            if elements % width:
                raise ValueError(f"{what} must be whole lines of {width} elements for {distribution!r}, got {elements}")


def lengths_of(lengths: Array | Sequence[int], x: torch.Tensor) -> torch.Tensor:
    """int64 [n]; `check_lengths` looks at what they are."""
    given = tensor_of(lengths) if hasattr(lengths, "__dlpack__") else lengths
    device = None if isinstance(given, torch.Tensor) else "cpu"
    tensor = torch.as_tensor(given, dtype=torch.int64, device=device)
    if tensor.shape != x.shape[:1]:
        raise ValueError(f"lengths must be {x.shape[0]} numbers from 0 to {x.shape[1]}")
    return tensor


def check_lengths(lengths: torch.Tensor | None, x: torch.Tensor) -> None:
    """Those on a GPU are not looked at, which would wait for it: its kernels take them as at most t."""
    if lengths is None or lengths.is_cuda or not len(lengths):
        return
    if not 0 <= int(lengths.min()) <= int(lengths.max()) <= x.shape[1]:
        raise ValueError(f"lengths must be {x.shape[0]} numbers from 0 to {x.shape[1]}")


def output_of(out: Array | None, x: torch.Tensor, dim: int) -> torch.Tensor:
    """float32 [len(x), dim] to add to."""
    if out is None:
        return torch.zeros(len(x), dim, dtype=torch.float32, device=x.device)
    if not isinstance(out, (torch.Tensor, np.ndarray)):
        raise ValueError(f"out must be a tensor or a NumPy array, which can be written to, got {type(out).__name__}")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only NumPy array")
    total, wanted = tensor_of(out), (torch.float32, (len(x), dim), x.device)
    if (total.dtype, total.shape, total.device) != wanted or not total.is_contiguous():
        raise ValueError(f"out must be contiguous float32 [{len(x)}, {dim}] on {x.device}, got {described(total)}")
    return total
