"""Which parameters are sketched by taps, and a pass during which they are placed (DESIGN §4). No random numbers.

While taps are on, the layers' own parameters are frozen, so autograd never forms a weight gradient; it works under
gradient checkpointing, and a parameter that is used twice is reported twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from gradex_fast.modes import recomputing
from gradex_fast.modules import trainable
from gradex_fast.recognise import kind_of
from gradex_fast.replay import layers_of, replayable
from gradex_fast.rows import Rows
from gradex_fast.taps import Receiver, RowsUnknown, TappedLayer, place


class Capture:
    """Which layers of a model have taps, and which parameters need the slow way.

    Args:
        names: of the trainable parameters that are sketched; None: all.

    Attributes:
        parameters: the trainable parameters that are sketched, by name.
        slow: those of them that no tap covers; their per-sample gradients are formed one by one.
        listening: whether a backward pass reports anything; off while the slow way uses the same graph.
        replaying: while a layer is run again, neither it nor the layers that it calls get taps.
        unknown: a refusal for every layer that a gradient reached and whose samples cannot be told apart.
    """

    def __init__(self, model: nn.Module, names: Collection[str] | None = None) -> None:
        everything = trainable(model)
        self.parameters = {n: p for n, p in everything.items() if names is None or n in names}
        self._others = [p for n, p in everything.items() if n not in self.parameters]
        self._model = model
        by_id = {id(parameter): name for name, parameter in self.parameters.items()}
        uses = [
            (layer, kind_of(model, path), own)
            for path, layer, parameters in layers_of(model)
            if (own := {a: by_id[id(p)] for a, p in parameters.items() if id(p) in by_id})
        ]
        # Of a tied parameter the taps must see every use; otherwise autograd is asked for all of them.
        self._layers = [TappedLayer(layer, kind, own) for layer, kind, own in uses if kind or replayable(layer)]
        self.slow: dict[str, nn.Parameter] = {}
        self.listening, self.replaying, self.unknown = True, False, []
        self.give_up({n for layer, kind, own in uses if not (kind or replayable(layer)) for n in own.values()})

    def give_up(self, names: Collection[str]) -> None:
        """From now on these parameters take the slow way."""
        self.slow = {name: p for name, p in self.parameters.items() if name in names or name in self.slow}
        for layer in self._layers:
            layer.own = {attribute: name for attribute, name in layer.own.items() if name not in self.slow}
        self._layers = [layer for layer in self._layers if layer.own]

    @contextmanager
    def taps(self, rows: Rows, receive: Receiver, frozen: bool = True) -> Iterator[torch.Tensor]:
        """While open, the model's forward pass places taps. Yields the leaf that all of them hang on.

        ``torch.autograd.grad(loss, leaf)`` then runs the backward pass and calls `receive` for every term.
        With `frozen` off the parameters have gradients of their own as well, to compare.

        Raises:
            RowsUnknown: at the end, if a gradient reached layers whose samples cannot be told apart; it names them all.
        """
        self.unknown.clear()
        off = [*(p for name, p in self.parameters.items() if name not in self.slow and frozen), *self._others]
        leaf = torch.zeros((), requires_grad=True)
        hooks = [
            layer.module.register_forward_hook(partial(place, self, rows, leaf, layer, receive), with_kwargs=True)
            for layer in self._layers
        ]
        try:
            for parameter in off:
                parameter.requires_grad_(False)
            with recomputing(self._model):
                yield leaf
        finally:
            for hook in hooks:
                hook.remove()
            for parameter in off:
                parameter.requires_grad_(True)
        if self.unknown:
            raise RowsUnknown(self.unknown[0].args[0], tuple({n: 0 for e in self.unknown for n in e.parameters}))
