"""Out of memory: which exceptions mean it, and what a pass over a batch needs."""

from __future__ import annotations

import torch

_SAYINGS = ("can't allocate memory", "bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")
"""torch's CPU allocator and C++ libraries end as a plain RuntimeError."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch might not have raised this."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in _SAYINGS)
