"""Out of memory: which exceptions mean it, and what a pass over a batch needs."""

from __future__ import annotations

import torch
from torch import nn

_SHARE = 0.8
"""Of a device's free memory; the rest is for kernels' scratch and what an estimate misses."""

_SAYINGS = ("can't allocate memory", "bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED", "out of memory")
"""torch's CPU allocator and C++ libraries end as a plain RuntimeError."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch might not have raised this."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in _SAYINGS)


def available(device: torch.device) -> int | None:
    """Bytes of a CUDA device that a pass may take; None on the CPU, where nobody can say what others will want."""
    if device.type != "cuda":
        return None
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(_SHARE * (torch.cuda.mem_get_info(device)[0] + cached))


def in_use() -> int:
    """Bytes that this process holds: of GPUs what torch has taken, without them the resident set."""
    if torch.cuda.is_initialized():
        return sum(torch.cuda.memory_reserved(index) for index in range(torch.cuda.device_count()))
    import psutil  # sketches by themselves do without

    return psutil.Process().memory_info().rss


class Saved:
    """While open, counts what autograd keeps for a backward pass.

    Attributes:
        sizes: bytes of every storage that is kept, by its handle; a model's own weights are not counted.

    Keeps them all while open, so that no two share a handle. On the meta device storages have no address.
    """

    def __init__(self, model: nn.Module) -> None:
        self._own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor)
        self.sizes: dict[int, int] = {}
        self._kept: list[torch.Tensor] = []

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Count one more that is kept, in whatever way."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own:
            self.sizes[storage._cdata] = storage.nbytes()
            self._kept.append(tensor)
        return tensor

    def with_(self, output: torch.Tensor) -> int:
        """Bytes of all that is kept, the pass's output too: the loss will keep it."""
        self.keep(output)
        return self.total

    def __enter__(self) -> Saved:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)
        self._kept.clear()

    @property
    def total(self) -> int:
        return sum(self.sizes.values())

    @property
    def peak(self) -> int:
        """Bytes at the height of the backward pass: all that is kept, and a gradient of the largest on its way down."""
        return self.total + 2 * max(self.sizes.values(), default=0)
