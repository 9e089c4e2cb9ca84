"""What a model makes of a row: the mean over its tokens of the last hidden state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from gradex_fast.batch import collate
from gradex_fast.fitting import Budget, in_batches
from gradex_fast.modes import evaluating
from gradex_fast.types import Example


@torch.no_grad()
def mean_states(model: nn.Module, examples: Sequence[Example], *, pad_id: int, batch_tokens: int) -> np.ndarray:
    """float64 [n, width]; one forward pass, without the output head.

    Raises:
        GradexError: a row does not fit in memory by itself; the message names it.
    """
    inner, device = backbone(model), next(model.parameters()).device
    found: list[np.ndarray | None] = [None] * len(examples)

    def measure(rows: list[int]) -> None:
        batch = collate([examples[row] for row in rows], pad_id)
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        states, mask = inner(**inputs).last_hidden_state.double(), inputs["attention_mask"][..., None]
        means = (states * mask).sum(1) / mask.sum(1)
        for row, mean in zip(rows, means.cpu().numpy(), strict=True):
            found[row] = mean

    with evaluating(model):
        in_batches(examples, Budget.of(batch_tokens), measure)
    return np.stack(found)


def backbone(model: nn.Module) -> nn.Module:
    """The model without its head; an adapter's layers are in it."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return plain.base_model
