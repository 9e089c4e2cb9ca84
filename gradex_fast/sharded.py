"""Trainings whose parameters are split over the processes (FSDP2): what cannot be, and whole tensors out of parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from gradex_fast.errors import GradexError
from gradex_fast.memory import out_of_memory
from gradex_fast.model import trainable
from gradex_fast.sections import ModelRecipe

_REFUSED = {
    "FSDP_OFFLOAD_PARAMS": ("false", "fsdp_offload_params", "figures are taken where the parameters lie"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("false", "fsdp_activation_checkpointing", "set model.gradient_checkpointing"),
    "ACCELERATE_MIXED_PRECISION": ("no", "mixed_precision", "model.dtype says what is computed in"),
}
"""Of accelerate's settings: the value that works, the key of its configuration, and why or what else."""


def asked() -> bool:
    """Whether accelerate started this process for FSDP."""
    return _is_set("ACCELERATE_USE_FSDP")


def check(recipe: ModelRecipe) -> None:
    """Before a run. Raises GradexError, by name, for what cannot be trained in parts."""
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        raise GradexError(
            "this process was started for DeepSpeed, which is not supported: start it for FSDP2 or plain data "
            "parallelism (examples/accelerate/fsdp2.yaml, ddp.yaml)"
        )
    if not asked():
        return
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise GradexError("FSDP needs fsdp_version: 2 in accelerate's configuration (examples/accelerate/fsdp2.yaml)")
    for variable, (works, key, reason) in _REFUSED.items():
        if (found := os.environ.get(variable, works).lower()) != works:
            raise GradexError(f"FSDP: {key} is {found}, which is not supported: {reason}")
    for key in ("quantization", "device_map"):
        if getattr(recipe, key):
            raise GradexError(f"model.{key}: FSDP splits whole layers over the processes; leave one of the two out")


def settle() -> None:
    """What accelerate's configuration leaves open or has otherwise, before a Trainer reads it.

    Every process loads whole weights, in sketching as in training. Checkpoints are gathered: the metadata of sharded
    ones is a pickle.
    """
    os.environ |= {"FSDP_CPU_RAM_EFFICIENT_LOADING": "false", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}


def require_divisible(model: nn.Module) -> None:
    """Raises GradexError for parameters that FSDP2 cannot split: those without a dimension, or trained in two types."""
    if scalar := next((name for name, parameter in model.named_parameters() if not parameter.ndim), None):
        raise GradexError(f"FSDP cannot split {scalar}, a single number; start for plain data parallelism")
    first: dict[torch.dtype, str] = {}
    for name, parameter in trainable(model).items():
        first.setdefault(parameter.dtype, name)
    if len(first) > 1:
        each = ", ".join(f"{name} is {str(dtype).removeprefix('torch.')}" for dtype, name in first.items())
        raise GradexError(f"FSDP trains parameters of one type only, but {each}; set model.dtype=float32")


def is_split(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def own(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part; the tensor where it is not split."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All processes together: the tensor of which each has a part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(model: nn.Module) -> dict[str, torch.Tensor]:
    """All processes together: what is trained, and buffers, whole and in main memory; empty but in the first process."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return get_model_state_dict(model, options=options)


def trained_values(model: nn.Module) -> dict[str, torch.Tensor]:
    """All processes together: trainable parameters by name, whole; where they are split, in the first process only."""
    named = trainable(model)
    if not is_split(model):
        return {name: parameter.detach().cpu().contiguous() for name, parameter in named.items()}
    values = gathered(model)
    return {name: values[name] for name in named if name in values}


def assign(parameter: nn.Parameter, value: torch.Tensor) -> None:
    """Give a parameter, or this process's part of one, its values out of the whole tensor."""
    if isinstance(parameter, DTensor):
        place = parameter.device_mesh, parameter.placements
        value = distribute_tensor(value.to(parameter.device), *place, src_data_rank=None)  # each process has them all
    parameter.copy_(value)


@contextmanager
def forward_only(model: nn.Module) -> Iterator[None]:
    """Around passes without a backward one, which would leave the last layers whole and what is trained in parts aside.

    Raises:
        GradexError: memory ran out. The others wait for as many passes as this process, so that it cannot try again.
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


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1", "yes")
