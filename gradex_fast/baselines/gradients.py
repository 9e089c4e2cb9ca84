"""Whole gradients of the loss, one at a time: what methods need that do more to a gradient than to project it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from gradex_fast.batch import collate
from gradex_fast.losses import sample_losses, token_losses
from gradex_fast.modes import evaluating
from gradex_fast.modules import trainable
from gradex_fast.types import Example


def gradients(model: nn.Module, batches: Sequence[Sequence[Example]], pad_id: int) -> Iterator[torch.Tensor]:
    """For each batch the gradient of the mean of its rows' ℓ_i: float32 [p], all trainable parameters in their order.

    One forward and one backward pass per batch; a batch of one row gives that row's gradient. No more than one
    gradient exists at a time.
    """
    parameters, device = list(trainable(model).values()), next(model.parameters()).device
    for batch in batches:
        tensors = {name: tensor.to(device) for name, tensor in collate(batch, pad_id).items()}
        with evaluating(model), torch.enable_grad():
            loss = sample_losses(*token_losses(model, tensors)[:2]).mean()
            found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        yield torch.cat([gradient.reshape(-1).float() for gradient in found])
