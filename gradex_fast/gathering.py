"""A model of whose parameters every process has a part (FSDP2): whole tensors out of the parts, and the way back.

What is imported here is in torch from 2.6 on; without FSDP none of it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gradex_fast.errors import GradexError
from gradex_fast.memory import out_of_memory
from gradex_fast.modules import trainable


def is_split(module: nn.Module) -> bool:
    return callable(getattr(type(module), "reshard", None))


def own(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part; the tensor where it is not split."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All processes together: the tensor of which each has a part."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def gathered(model: nn.Module) -> dict[str, torch.Tensor]:
    """All processes together: what is trained, and buffers, whole, in main memory; in the first process only."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    values = get_model_state_dict(model, options=options)
    once, all = ({name for name, _ in model.named_parameters(remove_duplicate=flag)} for flag in (True, False))
    return {name: value for name, value in values.items() if name not in all - once}  # of tied ones the first


def trained_values(model: nn.Module) -> dict[str, torch.Tensor]:
    """All processes together: trainable parameters by name, whole; where they are split, in the first process only."""
    named = trainable(model)
    if not is_split(model):
        return {name: parameter.detach().cpu().contiguous() for name, parameter in named.items()}
    return {name: value for name, value in gathered(model).items() if name in named}


def assign(parameter: nn.Parameter, value: torch.Tensor) -> None:
    """Give a parameter, or this process's part of one, its values out of the whole tensor."""
    if hasattr(parameter, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        place = parameter.device_mesh, parameter.placements
        value = distribute_tensor(value.to(parameter.device), *place, src_data_rank=None)  # each process has them all
    parameter.copy_(value)


@contextmanager
def forward_only(model: nn.Module) -> Iterator[None]:
    """Around passes without a backward one: FSDP leaves the last layers whole, and changes to their parts are lost.

    Raises:
        GradexError: memory ran out. The others wait for as many passes as this process makes: it cannot try again.
    """
    if not is_split(model):
        yield
        return
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            raise GradexError(f"memory ran out ({str(error).splitlines()[0]}); lower sketch.batch_tokens") from error
        raise
    for module in model.modules():
        if is_split(module):
            module.reshard()
