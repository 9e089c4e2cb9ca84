"""Taps: (input, output gradient) of every trainable layer during one backward pass (DESIGN §4). No random numbers.

A tap is an identity on a layer's output whose backward sees the output gradient. While taps are on, the layer's own
parameters are frozen, so autograd never forms a weight gradient; it works under gradient checkpointing, and a parameter
that is used twice is reported twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from gradex_fast.layers import Factors, Kind, kind_of, used
from gradex_fast.model import recomputing, trainable
from gradex_fast.rows import Rows

Receiver = Callable[[str, Factors], None]
"""Called with a parameter's name and one term of its gradient, in the backward pass."""


class RowsUnknown(NotImplementedError):
    """A layer's samples cannot be told apart, or its function is not the one that was expected.

    Attributes:
        parameters: the names of its parameters; `Capture.give_up` lets them take the slow way.
    """

    def __init__(self, message: str, parameters: tuple[str, ...]) -> None:
        super().__init__(message)
        self.parameters = parameters


class Capture:
    """Which layers of a model have taps, and which parameters need the slow way.

    Attributes:
        parameters: the trainable parameters that are sketched, by name.
        slow: those of them that no tap covers; their per-sample gradients are formed one by one.

    Raises:
        ValueError: no trainable parameter's name matches `pattern`.
    """

    def __init__(self, model: nn.Module, pattern: str | None = None) -> None:
        everything = trainable(model)
        self.parameters = {n: p for n, p in everything.items() if pattern is None or re.search(pattern, n)}
        if not self.parameters:
            raise ValueError(f"none of the model's {len(everything)} trainable parameters matches {pattern!r}")
        self._others = [p for n, p in everything.items() if n not in self.parameters]
        self._model = model
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        uses = [
            (layer, kind_of(model, path), own)
            for path, layer in model.named_modules()
            if (own := {a: names[id(p)] for a, p in layer.named_parameters(recurse=False) if id(p) in names})
        ]
        # Of a tied parameter the taps must see every use; otherwise autograd is asked for all of them.
        self._layers = [_Layer(layer, kind, own) for layer, kind, own in uses if kind]
        self.slow: dict[str, nn.Parameter] = {}
        self.give_up({name for _, kind, own in uses if not kind for name in own.values()})

    def give_up(self, names: Collection[str]) -> None:
        """From now on these parameters take the slow way."""
        self.slow = {name: p for name, p in self.parameters.items() if name in names or name in self.slow}
        for layer in self._layers:
            layer.own = {attribute: name for attribute, name in layer.own.items() if name not in self.slow}
        self._layers = [layer for layer in self._layers if layer.own]

    @contextmanager
    def taps(self, rows: Rows, receive: Receiver) -> Iterator[torch.Tensor]:
        """While open, the model's forward pass places taps. Yields the leaf that all of them hang on.

        ``torch.autograd.grad(loss, leaf)`` then runs the backward pass and calls `receive` for every term.

        Raises:
            RowsUnknown: in that backward pass, where a gradient reaches a layer whose samples cannot be told apart.
        """
        tapped = [p for name, p in self.parameters.items() if name not in self.slow]
        leaf = torch.zeros((), requires_grad=True)
        hooks = [
            layer.module.register_forward_hook(partial(_place, rows, leaf, layer, receive), with_kwargs=True)
            for layer in self._layers
        ]
        try:
            for parameter in (*tapped, *self._others):
                parameter.requires_grad_(False)
            with recomputing(self._model):
                yield leaf
        finally:
            for hook in hooks:
                hook.remove()
            for parameter in (*tapped, *self._others):
                parameter.requires_grad_(True)


class _Layer:
    """A layer with a tap: its kind, and the names of its own parameters by attribute."""

    def __init__(self, module: nn.Module, kind: Kind, own: dict[str, str]) -> None:
        self.module, self.kind, self.own = module, kind, own
        self.flat: bool | None = None  # a routed layer's two-dimensional output betrays itself by changing

    def refuse(self, why: str) -> RowsUnknown:
        names = tuple(self.own.values())
        return RowsUnknown(f"the layer of {names[0]} {why}", names)


class _Tap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, output, leaf, layer_input, receive):
        ctx.save_for_backward(layer_input)
        ctx.receive = receive
        return output.detach()

    @staticmethod
    def backward(ctx, gradient):
        (layer_input,) = ctx.saved_tensors
        ctx.receive(layer_input, gradient)
        return gradient if ctx.needs_input_grad[0] else None, torch.zeros(()), None, None


def _place(rows, leaf, layer, receive, module, arguments, named, output):
    """Forward hook: `output` behind a tap. A layer that serves the whole batch at once is spread over it first.

    What cannot be read is refused when its gradient comes, not here: of some passes (DoRA's weight norm) none does.
    """
    if not torch.is_grad_enabled():
        return None
    shape = list(output.shape)
    try:
        layer_input, kind = used(module, layer.kind, arguments, named, output)
    except ValueError as error:
        return _Tap.apply(output, leaf, None, partial(_refuse, layer.refuse(str(error))))
    layout = _layout(rows, layer, layer_input, output)
    if layout is None:
        why = f"gave {shape} for {rows.samples} samples: its rows cannot be told apart"
        return _Tap.apply(output, leaf, None, partial(_refuse, layer.refuse(why)))
    if layout == "shared":
        output, layer_input = (t.expand(rows.samples, *t.shape[1:]) for t in (output, layer_input))
    return _Tap.apply(output, leaf, layer_input, partial(_report, rows, layout, layer, kind, receive))


def _layout(rows: Rows, layer: _Layer, layer_input: torch.Tensor, output: torch.Tensor) -> str | None:
    layout = rows.layout(output)
    if isinstance(layer.module, nn.Embedding) and layer_input.ndim == 1:  # positions, for all samples at once
        return None
    if output.ndim == 2 and rows.samples > 1 and layout:
        if layer.flat not in (None, layout == "flat"):
            return None
        layer.flat = layout == "flat"
    return layout


def _refuse(error, layer_input, gradient):
    raise error


@torch.no_grad()
def _report(rows, layout, layer, kind, receive, layer_input, gradient):
    with torch.autocast(gradient.device.type, enabled=False):
        d, x = (rows.split(tensor, layout) for tensor in (gradient, layer_input))
        d = d.reshape(len(d), -1, gradient.shape[-1])
        x = x if isinstance(layer.module, nn.Embedding) else x.reshape(len(d), -1, layer_input.shape[-1])
        for factors in kind(layer.module, x, d):
            if factors.attribute in layer.own:
                padded = rows.lengths is not None and factors.inputs.shape[1] == rows.longest
                receive(layer.own[factors.attribute], replace(factors, lengths=rows.lengths) if padded else factors)
