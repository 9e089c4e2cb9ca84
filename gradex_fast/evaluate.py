"""The true loss and accuracy of a model on some rows; one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gradex_fast.batch import collate
from gradex_fast.fitting import Budget, in_batches
from gradex_fast.gathering import forward_only
from gradex_fast.losses import sample_losses, token_losses
from gradex_fast.modes import evaluating
from gradex_fast.types import Example


@dataclass(frozen=True)
class Evaluation:
    """Attributes: loss: float64 [n], ℓ_i in nats. correct: bool [n], see `evaluate`."""

    loss: np.ndarray
    correct: np.ndarray


@torch.no_grad()
def evaluate(model: nn.Module, examples: Sequence[Example], *, pad_id: int, batch_tokens: int | Budget) -> Evaluation:
    """ℓ_i of every row, and whether the model gets it right.

    A row is right if every supervised label is the likeliest one given the true labels before it: then, and
    only then, greedy decoding gives exactly the completion. For a classifier it is the usual accuracy.

    Raises:
        GradexError: a row does not fit in memory by itself; the message names it.
    """
    device = next(model.parameters()).device
    loss, correct = np.zeros(len(examples)), np.zeros(len(examples), bool)

    def measure(rows: list[int]) -> None:
        batch = collate([examples[row] for row in rows], pad_id)
        losses, supervised, right = token_losses(model, {k: v.to(device) for k, v in batch.items()})
        loss[rows] = sample_losses(losses, supervised).double().cpu().numpy()
        correct[rows] = (right | ~supervised).all(1).cpu().numpy()

    with evaluating(model), forward_only(model):
        in_batches(examples, Budget.of(batch_tokens), measure)
    return Evaluation(loss, correct)
