"""The loss and the margin of every sample (DESIGN §2, Margin)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from gradex_fast.cross_entropy import cross_entropy
from gradex_fast.head import logits_at
from gradex_fast.modules import encodes
from gradex_fast.types import UNSUPERVISED

SMALLEST_LOSS = 1e-6
"""ℓ is raised to this before 1 - exp(-ℓ) divides (DESIGN §2)."""


def token_losses(
    model: nn.Module, batch: Mapping[str, torch.Tensor], packed: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Negative log-likelihood of every supervised label, which entries are one, and which were the likeliest.

    A decoder-only model predicts position t from those before it. Logits are formed at supervised positions only, and
    the model is asked for no loss of its own.

    Args:
        packed: one row of many samples: logits at all positions, and s = t - 1, every label after the first.

    Returns:
        float32 [n, s] nats (0 where unsupervised), bool [n, s] supervised, bool [n, s] the label is the arg max.
        s = the most supervised labels of a row, at least 1: row i's come first, in their order. A classifier (labels
        [n]) has s = 1.
    """
    labels, bare = batch["labels"], getattr(model, "module", model)
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    if labels.ndim == 1:
        logits, targets = model(**inputs).logits[:, None, :], labels[:, None]
    elif packed:
        logits, targets = model(**inputs).logits[:, :-1], labels[:, 1:]
    else:
        decodes_apart = encodes(model)
        inputs |= _decoder_inputs(bare, batch) if decodes_apart else {}
        targets = labels if decodes_apart else labels[:, 1:]
        places = supervised_places(targets)
        logits, targets = logits_at(model, inputs, places, labels.shape[1]), targets.gather(1, places)
    targets = targets.to(logits.device)
    losses, right = cross_entropy(logits, targets)
    return losses, targets != UNSUPERVISED, right


def _decoder_inputs(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What a decoder starts from. A few models tell it only to one that hands them labels, and form their own loss."""
    if "decoder_input_ids" in batch:
        return {}
    prepare, labels = getattr(model, "prepare_decoder_input_ids_from_labels", None), batch["labels"]
    return {"decoder_input_ids": prepare(labels=labels)} if prepare else {"labels": labels}


def supervised_places(targets: torch.Tensor) -> torch.Tensor:
    """Where targets [n, t] are supervised: int64 [n, s], in their order; a row that has fewer goes on with others."""
    supervised = targets != UNSUPERVISED
    most = max(1, int(supervised.sum(1).max()))
    return supervised.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]


def sample_losses(losses: torch.Tensor, supervised: torch.Tensor) -> torch.Tensor:
    """ℓ_i [n]: the mean over sample i's supervised tokens."""
    return (losses * supervised).sum(1) / supervised.sum(1).clamp(min=1)


def packed_losses(model: nn.Module, row: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """ℓ_i [n] of the n samples of a packed row (`pieces.packed_row`), from logits at supervised positions only."""
    targets = row["labels"][:, 1:]
    places = supervised_places(targets)
    inputs = {name: row[name] for name in ("input_ids", "position_ids")}
    logits = logits_at(model, inputs, places, row["labels"].shape[1])
    targets = targets.gather(1, places).to(logits.device)
    losses, _ = cross_entropy(logits, targets)
    starts = row["position_ids"] == 0
    sample = (starts.cumsum(1)[:, 1:] - 1).gather(1, places).to(logits.device)
    own = sample == torch.arange(int(starts.sum()), device=logits.device)[:, None]  # [n, s]
    return sample_losses(losses, own & (targets != UNSUPERVISED))


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
