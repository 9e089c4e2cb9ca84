"""Started for FSDP2, which splits the parameters over the processes: what cannot be split, and how layers are."""

from __future__ import annotations

import os
from importlib.metadata import version

import torch
from torch import nn

from gradex_fast.errors import GradexError
from gradex_fast.modules import trainable
from gradex_fast.sections import ModelRecipe

_ACCELERATE = (1, 15)
"""The first one whose checkpoints of adapters in parts have been read back."""

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
    if tuple(map(int, version("accelerate").split(".")[:2])) < _ACCELERATE:
        raise GradexError(
            f"FSDP needs accelerate 1.15 or later, this is {version('accelerate')}: pip install -U accelerate"
        )
    for variable, (works, key, reason) in _REFUSED.items():
        if (found := os.environ.get(variable, works).lower()) != works:
            raise GradexError(f"FSDP: {key} is {found}, which is not supported: {reason}")
    for key in ("quantization", "device_map"):
        if getattr(recipe, key):
            raise GradexError(f"model.{key}: FSDP splits whole layers over the processes; leave one of the two out")


def settle(model: nn.Module) -> None:
    """What accelerate's configuration leaves open or has otherwise, before a Trainer reads it.

    Every process loads whole weights, in sketching as in training. Checkpoints are gathered: the metadata of sharded
    ones is a pickle.

    Raises:
        GradexError: the model has parameters that FSDP2 cannot split.
    """
    _require_divisible(model)
    os.environ |= {"FSDP_CPU_RAM_EFFICIENT_LOADING": "false", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}
    if layers := _layers(model):
        os.environ.setdefault("FSDP_TRANSFORMER_CLS_TO_WRAP", ",".join(layers))


def _require_divisible(model: nn.Module) -> None:
    if scalar := next((name for name, parameter in model.named_parameters() if not parameter.ndim), None):
        raise GradexError(f"FSDP cannot split {scalar}, a single number; start for plain data parallelism")
    first: dict[torch.dtype, str] = {}
    for name, parameter in trainable(model).items():
        first.setdefault(parameter.dtype, name)
    if len(first) > 1:
        each = ", ".join(f"{name} is {str(dtype).removeprefix('torch.')}" for dtype, name in first.items())
        raise GradexError(f"FSDP trains parameters of one type only, but {each}; set model.dtype=float32")


def _layers(model: nn.Module) -> list[str]:
    """Classes that are split each by itself: what transformers names, but for what holds the embeddings (BERT's).

    accelerate splits these apart, and does not look whether they are.
    """
    named = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in named]
    embedding = model.get_input_embeddings()
    holding = {type(layer).__name__ for layer in layers if any(module is embedding for module in layer.modules())}
    return sorted({type(layer).__name__ for layer in layers} - holding)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("true", "1", "yes")
