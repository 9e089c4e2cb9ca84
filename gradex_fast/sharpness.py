"""Sharpness-aware minimisation (Foret et al. 2021) for a Trainer: the gradient at the worst point near by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gradex_fast.gathering import whole


@contextmanager
def perturbed(parameters: Iterable[nn.Parameter], rho: float) -> Iterator[None]:
    """While open, the parameters are at w + ε, ε = ρ g / ‖g‖, g their gradients; afterwards at w, bit for bit.

    The norm is over all of them together. One without a gradient stays; where g = 0, so do all.
    """
    moved = [parameter for parameter in parameters if parameter.grad is not None]
    before = [parameter.detach().clone() for parameter in moved]
    norm = sum(float(whole(parameter.grad.double().square().sum())) for parameter in moved) ** 0.5
    try:
        with torch.no_grad():
            for parameter in moved:
                parameter.add_(parameter.grad, alpha=rho / norm if norm else 0.0)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(moved, before, strict=True):
                parameter.copy_(value)


class SharpnessAware:
    """Before a Trainer in the order of bases: gradients of a step are those at w + ε, ε from the same micro-batches.

    Clipping, the optimiser and the schedule come after, as without it. A pass at w + ε draws the random numbers of the
    pass at w, so that it has the same dropout, and as ρ → 0 nothing changes.
    """

    def __init__(self, *, rho: float, **named: Any) -> None:
        super().__init__(**named)
        self._rho, self._passes = rho, []

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        self._passes.append((inputs, _random_state()))
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:  # the last micro-batch of the step: g is whole
            passes, self._passes = self._passes, []
            after = _random_state()
            with perturbed(model.parameters(), self._rho):
                model.zero_grad()
                for inputs, state in passes:
                    _set_random_state(state)
                    super().training_step(model, inputs, num_items_in_batch)
            _set_random_state(after)
        return loss


def _random_state() -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_random_state(state: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
