"""Early stopping: looks at a loss while a model is trained, and takes it back to the best of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn
from transformers import TrainerCallback

from gradex_fast import joint
from gradex_fast.files import read_json, write_atomically, write_json
from gradex_fast.gathering import assign, trained_values
from gradex_fast.modules import trainable


class EarlyStopping(TrainerCallback):
    """Every so many steps, and after the last, looks at the loss; stops when `patience` looks in a row found no lower.

    The weights at each look that was the lowest so far are kept beside the checkpoints, until a later checkpoint holds
    a lower one: whatever checkpoint a training goes on from, the best look before it is there.

    Args:
        loss: of the model that it is given, on the rows that decide.
        every: optimiser steps. patience: looks. steps: of the whole training.
    """

    def __init__(self, loss: Callable[[nn.Module], float], every: int, patience: int, steps: int) -> None:
        self._loss, self._every, self._patience, self._steps = loss, every, patience, steps
        self._folder, self.looks = Path(), {}

    def open(self, folder: Path, step: int) -> None:
        """Take up the looks that were made up to `step`; later ones are made again."""
        self._folder = folder
        found = (read_json(folder / "looks.json") or {}) if step else {}
        self.looks = {int(at): loss for at, loss in found.items() if int(at) <= step}

    @property
    def best(self) -> int:
        """The step of the first look that found the lowest loss."""
        return min(self.looks, key=lambda step: (self.looks[step], step))

    @property
    def over(self) -> bool:
        """Whether nothing is left to train."""
        return bool(self.looks) and sum(step > self.best for step in self.looks) >= self._patience

    def restore(self, model: nn.Module) -> None:
        """Give the trainable parameters the values that they had at the best look."""
        values = load_file(self._weights(self.best))
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                assign(parameter, values[name])

    def on_step_end(self, args, state, control, model=None, **named) -> None:
        step = state.global_step
        if step % self._every == 0 or step == self._steps:
            self.looks[step] = joint.leaders(self._loss(model))
            if self.best == step:
                values = trained_values(model)
                if joint.leads():
                    write_atomically(self._weights(step), save(values))
            if joint.leads():
                write_json(self._folder / "looks.json", self.looks)
        control.should_training_stop = control.should_training_stop or self.over

    def on_save(self, args, state, control, **named) -> None:
        for path in self._folder.glob("look-*.safetensors"):
            if joint.leads() and self.looks and path != self._weights(self.best):
                path.unlink()

    def _weights(self, step: int) -> Path:
        return self._folder / f"look-{step}.safetensors"
