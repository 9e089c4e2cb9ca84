"""Where a base model's weights lie and in how many bits: quantisation, device maps, recomputed activations."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from gradex_fast.errors import GradexError
from gradex_fast.sections import ModelRecipe


def loading_options(recipe: ModelRecipe, device: str, stored: torch.dtype | None) -> dict[str, Any]:
    """What `from_pretrained` is told beside the name; `stored`: the type that the weights have on disk.

    Raises:
        GradexError: bitsandbytes is missing, or a device of the map.
    """
    options: dict[str, Any] = {}
    named = [place for _, place in recipe.device_map] if isinstance(recipe.device_map, tuple) else []
    if device == "cpu" and (others := [place for place in named if place != "cpu"]):
        raise GradexError(f"model.device_map names device {others[0]!r}, but this run is on the CPU")
    if recipe.quantization:
        options["quantization_config"] = _bits_and_bytes(recipe, stored)
    if recipe.device_map and device != "cpu":
        spread = recipe.device_map
        options["device_map"] = spread if isinstance(spread, str) else dict(spread)
    elif recipe.quantization:  # its weights cannot move any more
        options["device_map"] = {"": device if device == "cpu" else torch.cuda.current_device()}
    return options


def placed(model: nn.Module, recipe: ModelRecipe, device: str) -> nn.Module:
    """The model where it is to be.

    Raises:
        GradexError: layers lie where they can be neither trained nor sketched.
    """
    lies = getattr(model, "hf_device_map", None) or {}
    if aside := [name for name, place in lies.items() if place == "disk" or (place == "cpu" and device != "cpu")]:
        raise GradexError(
            f"model.device_map: {len(aside)} of {len(lies)} parts ({aside[0]}, ...) do not fit on the GPUs and would "
            "lie in main memory or on the disk, where they can be neither trained nor sketched; take more GPUs, "
            "model.quantization or a smaller model"
        )
    if lies and set(lies.values()) == {"cpu"}:
        del model.hf_device_map  # PEFT would take all layers for offloaded ones
    return model if lies or getattr(model, "is_quantized", False) else model.to(device)


def recompute(model: nn.Module) -> None:
    """Gradient checkpointing, in training and in a sketch pass alike.

    The form without re-entrance: the other one gives no gradients above a frozen base.
    """
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def cast_adapters(model: nn.Module, dtype: torch.dtype) -> None:
    """Give what PEFT adds to layers another type; modules that are trained as a whole (a new head) keep theirs."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in model.modules():
        for name in layer.adapter_layer_names if isinstance(layer, BaseTunerLayer) else ():
            if isinstance(part := getattr(layer, name, None), nn.Module):
                part.to(dtype)


def require_bits_and_bytes() -> None:
    """Raises GradexError where bitsandbytes is not installed."""
    if find_spec("bitsandbytes") is None:
        raise GradexError("model.quantization needs bitsandbytes: pip install 'gradex_fast[quantized]'")


def _bits_and_bytes(recipe: ModelRecipe, stored: torch.dtype | None) -> Any:
    """NF4 with quantised constants (QLoRA), or LLM.int8.

    Of what PEFT's `prepare_model_for_kbit_training` does, an adapter has frozen the base anyway, and `recompute` is an
    option of its own; norms, embeddings and the head keep `model.dtype`, for in float32 all activations would be so.
    Int8 has no columns of outliers, which a batch's samples would share.
    """
    from transformers import BitsAndBytesConfig

    require_bits_and_bytes()
    if recipe.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    compute = (stored or torch.float32) if recipe.dtype == "auto" else getattr(torch, recipe.dtype)
    nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=compute, **nf4)
