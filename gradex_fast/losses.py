"""The loss and the margin of every sample (DESIGN §2, Margin)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from gradex_fast.types import UNSUPERVISED

SMALLEST_LOSS = 1e-6
"""ℓ is raised to this before 1 - exp(-ℓ) divides (DESIGN §2)."""


def token_losses(model: nn.Module, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of every label, which of them count, and which were the likeliest.

    Returns:
        float32 [n, t] nats (0 where unsupervised), bool [n, t] supervised, bool [n, t] the label is the arg max.
        A classifier (labels [n]) has t = 1; a decoder-only model predicts position t from those before it.
    """
    labels = batch["labels"]
    encodes = getattr(model, "module", model).config.is_encoder_decoder
    given = batch if encodes else {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits = model(**given).logits
    if labels.ndim == 1:
        logits, labels = logits[:, None, :], labels[:, None]
    elif not encodes:
        logits, labels = logits[:, :-1], labels[:, 1:]
    logits = logits.float()
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none", ignore_index=UNSUPERVISED)
    return losses, labels != UNSUPERVISED, logits.detach().argmax(-1) == labels


def sample_losses(losses: torch.Tensor, supervised: torch.Tensor) -> torch.Tensor:
    """ℓ_i [n]: the mean over sample i's supervised tokens."""
    return (losses * supervised).sum(1) / supervised.sum(1).clamp(min=1)


def sequence_margin(losses: torch.Tensor, supervised: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """h = log(p̄ / (1 - p̄)), p̄ = exp(-ℓ), so that softplus(-h) = ℓ (DESIGN §2).

    Returns:
        h [n], and Σ_i -ℓ_i / (1 - p̄_i) with constant denominators: its gradient by sample i is ∇h_i.
    """
    loss = sample_losses(losses, supervised)
    safe = loss.detach().double().clamp(min=SMALLEST_LOSS)
    miss = -torch.expm1(-safe)
    return -safe - torch.log(miss), -loss / miss.to(loss.dtype)


def token_margin(losses: torch.Tensor, supervised: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """h = mean over tokens of log(p / (1 - p)), exactly; the margin of the authors' code without its shift."""
    safe = losses.detach().double().clamp(min=SMALLEST_LOSS)
    miss = -torch.expm1(-safe)
    margin = sample_losses(-safe - torch.log(miss), supervised)
    return margin, sample_losses(-losses / miss.to(losses.dtype), supervised)


MARGINS = {"sequence": sequence_margin, "token": token_margin}
