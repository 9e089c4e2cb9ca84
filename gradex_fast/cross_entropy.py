"""The loss of every token from its logits, in pieces: no second array of the logits' size before the backward pass."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.autograd.function import once_differentiable

from gradex_fast.types import UNSUPERVISED

_PIECE = {"cpu": 1 << 19, "cuda": 1 << 24}
"""Logits in a piece. 2 MiB of float32 stay in a core's cache, which makes the softmax four times as fast."""


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """-log softmax(logits)[target] in float32, and whether the target is the arg max.

    Args:
        logits: [n, s, V] of any float type; each piece is rounded to float32 by itself.
        targets: int64 [n, s], `UNSUPERVISED` where no loss is taken.

    Returns:
        float32 [n, s] nats (0 where unsupervised; nothing flows back from there), bool [n, s].
    """
    losses, right = _CrossEntropy.apply(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
    return losses.view_as(targets), right.view_as(targets)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets):
        losses = torch.empty_like(targets, dtype=torch.float32)
        right = torch.empty_like(targets, dtype=torch.bool)
        for rows in _pieces(logits):
            losses[rows], right[rows] = _piece_losses(logits[rows], targets[rows, None])
        ctx.save_for_backward(logits, targets)
        ctx.mark_non_differentiable(right)
        return losses.masked_fill_(targets == UNSUPERVISED, 0), right

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient, _):
        """∂/∂logits = softmax - one-hot, times the loss's own gradient."""
        logits, targets = ctx.saved_tensors
        found, kept = torch.empty_like(logits), targets != UNSUPERVISED
        for rows in _pieces(logits):
            piece = torch.softmax(logits[rows], -1, dtype=torch.float32)
            piece.scatter_add_(1, targets[rows, None].clamp(min=0), piece.new_full((len(piece), 1), -1.0))
            torch.mul(piece, gradient[rows, None], out=found[rows]).masked_fill_(~kept[rows, None], 0)
        return found, None


def _piece_losses(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [r] and whether each target [r, 1] is the arg max of logits [r, V]: the first one, if several are equal.

    The arg max itself is slow on the CPU: it is looked for only where rounding leaves the target a rival. A GPU would
    have to be waited for to know where that is.
    """
    log_p, targets = torch.log_softmax(logits, -1, dtype=torch.float32), targets.clamp(min=0)
    own = log_p.gather(1, targets)[:, 0]
    if logits.is_cuda:
        return -own, logits.argmax(-1) == targets[:, 0]
    best_other = log_p.scatter_(1, targets, -torch.inf).amax(-1)
    right, tied = own > best_other, (own == best_other).nonzero()[:, 0]
    right[tied] = logits[tied].argmax(-1) == targets[tied, 0]
    return -own, right


def _pieces(logits: torch.Tensor) -> Iterator[slice]:
    size = max(1, _PIECE.get(logits.device.type, _PIECE["cuda"]) // logits.shape[-1])
    for start in range(0, len(logits), size):
        yield slice(start, start + size)
