"""Processes that train one model together; where there is one alone, all of this is nothing."""

from __future__ import annotations

import torch
import torch.distributed as distributed

from gradex_fast.errors import GradexError


def joined() -> bool:
    """Whether there are others: torchrun or accelerate started several, and the Trainer has joined them."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def leads() -> bool:
    """Whether this process is the one that writes."""
    return not joined() or distributed.get_rank() == 0


def wait() -> None:
    """Until all have come here."""
    if joined():
        distributed.barrier()


def leave() -> None:
    """At the end of the program."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def any_of(flag: bool) -> bool:
    """Whether it is true in any process."""
    return bool(most(int(flag)))


def most(count: int) -> int:
    """The largest of all processes' counts."""
    if not joined():
        return count
    shared = torch.tensor(count, device=_device())
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return int(shared.item())


def leaders(value: float) -> float:
    """The first process's value, so that all decide alike."""
    if not joined():
        return value
    shared = torch.tensor(value, dtype=torch.float64, device=_device())
    distributed.broadcast(shared, 0)
    return shared.item()


def require_same(digest: str, what: str) -> None:
    """Raises `GradexError` if this process's digest (hex) is not the first one's."""
    own = int(digest[:13], 16)  # 52 bits, which a float64 holds
    if leaders(float(own)) != own:
        raise GradexError(f"{what} differ between the processes of this job; are the same files there on all machines?")


def _device() -> str:
    return "cuda" if distributed.get_backend() == "nccl" else "cpu"
