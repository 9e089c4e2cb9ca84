"""Bytes that a quantised base takes, from its outline: bitsandbytes' layouts of 4 and 8 bits."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.base import get_keys_to_not_convert
from transformers.quantizers.quantizers_utils import should_convert_module

from gradex_fast.model import load_outline
from gradex_fast.sections import ModelRecipe

_NF4_TABLES = 4 * (16 + 256 + 1)
"""Of each layer: the 16 values of NF4, the 256 of its constants, and these constants' mean, float32."""


def bytes_of(parameter: torch.Tensor) -> int:
    return parameter.numel() * parameter.element_size()


def base_bytes(model: ModelRecipe) -> tuple[int, int]:
    """Of the quantised base, and of its largest quantised weight in the type that it computes in.

    Norms, embeddings, the output head and fused experts stay as they are; so transformers chooses.
    """
    base = load_outline(model.model_copy(update={"quantization": None, "adapter": "full", "like": None}))
    kept = [*get_keys_to_not_convert(base), *(base._keep_in_fp32_modules or ())]
    linear = [m for name, m in base.named_modules() if is_linear(m) and should_convert_module(name, kept)]
    size = {"4bit": _nf4, "8bit": _int8}[model.quantization]
    saved = sum(bytes_of(layer.weight) - size(layer) for layer in linear)
    whole = sum(map(bytes_of, base.parameters()))
    return whole - saved, max((bytes_of(layer.weight) for layer in linear), default=0)


def is_linear(layer: nn.Module) -> bool:
    """Whether it is of a kind that bitsandbytes has in few bits."""
    return type(layer) in (nn.Linear, Conv1D)


def _nf4(layer: nn.Module) -> int:
    """Half a byte an element; a byte for the scale of every 64, and 4 for that of every 256 of these."""
    scales = math.ceil(layer.weight.numel() / 64)
    return math.ceil(layer.weight.numel() / 2) + scales + 4 * math.ceil(scales / 256) + _NF4_TABLES


def _int8(layer: nn.Module) -> int:
    """A byte an element, and a scale, float32, for every output."""
    outputs = layer.nf if isinstance(layer, Conv1D) else layer.out_features
    return layer.weight.numel() + 4 * outputs
