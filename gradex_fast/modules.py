"""What a model and its layers say of themselves: trainable parameters, an encoder, classes of transformers.

Nothing of transformers is imported: before somebody has imported a class, no layer is of it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from torch import nn


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters by name; one that is used twice (tied weights) has its first name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def grouped(parameters: Mapping[str, nn.Parameter], patterns: Mapping[str, str | None]) -> dict[str, str]:
    """The group of every parameter whose name a group's regular expression finds; None finds all.

    Raises:
        ValueError: a group without parameters, or a parameter of two groups.
    """
    group_of: dict[str, str] = {}
    for group, pattern in patterns.items():
        found = [name for name in parameters if pattern is None or re.search(pattern, name)]
        if not found:
            raise ValueError(f"none of the model's {len(parameters)} trainable parameters matches {pattern!r}")
        if twice := next((name for name in found if name in group_of), None):
            raise ValueError(f"{twice} is in the groups {group_of[twice]!r} and {group!r}")
        group_of |= dict.fromkeys(found, group)
    return group_of


def encodes(model: nn.Module) -> bool:
    """Whether it is an encoder-decoder; a model without a configuration is none."""
    config = getattr(getattr(model, "module", model), "config", None)
    return getattr(config, "is_encoder_decoder", False)


def is_conv1d(layer: nn.Module) -> bool:
    """Whether it is transformers' Conv1D, a Linear whose weight is stored [inputs, outputs], and no subclass."""
    return type(layer) is _imported("transformers.pytorch_utils", "Conv1D")


def checkpoints(layer: nn.Module) -> bool:
    """Whether it is one of transformers' layers that can be recomputed, and that is switched on."""
    kind = _imported("transformers.modeling_layers", "GradientCheckpointingLayer")
    return kind is not None and isinstance(layer, kind) and layer.gradient_checkpointing


def _imported(module: str, name: str) -> type | None:
    return getattr(sys.modules.get(module), name, None)
