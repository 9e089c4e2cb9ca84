"""Which mode a model is in while a pass runs: evaluation, and recomputed activations in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn

from gradex_fast.modules import checkpoints


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without a cache of keys while open; afterwards every module is back in its own mode."""
    training = [module for module in model.modules() if module.training]
    found = (vars(module).get("config") for module in model.modules())  # getattr is slow where there is none
    configs = [config for config in found if getattr(config, "use_cache", False)]
    if training:
        model.eval()
    try:
        for config in configs:
            config.use_cache = False
        yield
    finally:
        for config in configs:
            config.use_cache = True
        for module in training:
            module.training = True


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """While open, gradient checkpointing that is switched on works in evaluation mode too.

    transformers recomputes a layer only if the layer itself, not its children, is in training mode. So it is, but not
    while its forward pass runs: some have dropout of their own.
    """
    layers = [module for module in model.modules() if checkpoints(module)]
    before = [(layer, layer.training, layer._gradient_checkpointing_func) for layer in layers]
    try:
        for layer, training, checkpoint in before:
            layer.training, layer._gradient_checkpointing_func = (
                True,
                partial(_checkpointed, layer, training, checkpoint),
            )
        yield
    finally:
        for layer, training, checkpoint in before:
            layer.training, layer._gradient_checkpointing_func = training, checkpoint


def _checkpointed(layer, training, checkpoint, function, *arguments):
    def run(*arguments):
        layer.training = training
        try:
            return function(*arguments)
        finally:
            layer.training = True

    return checkpoint(run, *arguments)
