"""Logits at chosen positions only: the output head sees no others, whatever the model does before and after it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from weakref import WeakSet

import torch
from torch import nn

from gradex_fast.memory import out_of_memory

_log = logging.getLogger(__name__)

_stubborn: WeakSet[nn.Module] = WeakSet()
"""Heads that cannot be given chosen positions; found out once, then left alone."""


def logits_at(model: nn.Module, inputs: Mapping[str, torch.Tensor], places: torch.Tensor, length: int) -> torch.Tensor:
    """Logits [n, s, V] at `places` int64 [n, s], each row's without repetition, of a model with `length` positions.

    While the model runs, its output head gets hidden[i, places[i]] in place of hidden [n, length, w]: what else it
    does with the logits (soft-capping, scales, biases), and taps and adapters on the head, see s positions with the
    samples first. A model without a known head, or whose head is called otherwise than once with [n, length, w],
    forms all logits, from which `places` are then taken.
    """
    head = _output_head(model)
    if head is None or head in _stubborn:
        return _taken(model(**inputs).logits, places)
    gather = _Gather(places, length)
    hook = head.register_forward_pre_hook(gather)
    try:
        logits = model(**inputs).logits
    except (RuntimeError, ValueError, IndexError) as error:
        if not gather.done or out_of_memory(error):
            raise
        logits = None  # the model minds: what it does after its head wants all positions
    finally:
        hook.remove()
    if not gather.done:
        return _taken(logits, places)
    if logits is not None and gather.calls == 1 and logits.shape[:2] == places.shape:
        return logits
    logits = _taken(model(**inputs).logits, places)
    _stubborn.add(head)
    _log.info("the logits of %s are formed at all positions", type(model).__name__)
    return logits


class _Gather:
    """Forward pre-hook of a head. Attributes: calls: of the head. done: whether one got the chosen positions."""

    def __init__(self, places: torch.Tensor, length: int) -> None:
        self._places, self._shape = places, (len(places), length)
        self.calls, self.done = 0, False

    def __call__(self, head: nn.Module, arguments: tuple) -> tuple | None:
        self.calls += 1
        hidden = arguments[0] if arguments else None
        if self.done or not isinstance(hidden, torch.Tensor) or hidden.shape[:-1] != self._shape:
            return None
        self.done = True
        return _taken(hidden, self._places), *arguments[1:]


def _output_head(model: nn.Module) -> nn.Module | None:
    find = getattr(getattr(model, "module", model), "get_output_embeddings", None)
    return find() if find else None


def _taken(whole: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[n, s, w] of [n, t, w]."""
    return whole.gather(1, places.to(whole.device)[..., None].expand(-1, -1, whole.shape[-1]))
