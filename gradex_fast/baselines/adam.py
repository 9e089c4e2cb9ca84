"""The direction in which Adam would move for one row (Kingma and Ba 2015; LESS, §3.1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Moments:
    """Attributes: mean, square: running averages of the gradient and of its square [p], as Adam keeps them (not divided
    by 1 - βᵗ). steps: t, how many gradients they have seen."""

    mean: torch.Tensor
    square: torch.Tensor
    steps: int


def moments(gradients: Iterable[torch.Tensor], size: int, max_norm: float) -> Moments:
    """Adam's moments after these gradients [p], each cut to `max_norm` as in training."""
    mean, square, steps = torch.zeros(size), torch.zeros(size), 0
    for gradient in gradients:
        cut = gradient.cpu() * min(1.0, max_norm / (float(gradient.norm()) + 1e-6))
        mean.mul_(BETA1).add_(cut, alpha=1 - BETA1)
        square.mul_(BETA2).addcmul_(cut, cut, value=1 - BETA2)
        steps += 1
    return Moments(mean, square, steps)


def direction(gradient: torch.Tensor, before: Moments) -> torch.Tensor:
    """Γ [p] = m / √(v + ε) after one more step with this gradient:

    m = (β₁ m + (1 - β₁) g) / (1 - β₁ᵗ), v = (β₂ v + (1 - β₂) g²) / (1 - β₂ᵗ).
    """
    t, g = before.steps + 1, gradient.cpu()
    m = (BETA1 * before.mean + (1 - BETA1) * g) / (1 - BETA1**t)
    v = (BETA2 * before.square + (1 - BETA2) * g * g) / (1 - BETA2**t)
    return m / torch.sqrt(v + EPSILON)
