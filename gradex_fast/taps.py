"""A tap: an identity on a layer's output whose backward pass sees the output's gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.utils import _pytree as pytree

from gradex_fast.layers import Kind
from gradex_fast.recognise import used
from gradex_fast.replay import Call, tensors
from gradex_fast.rows import Rows
from gradex_fast.terms import Factors, Term

Receiver = Callable[[str, Term], None]
"""Called with a parameter's name and one term of its gradient, in the backward pass."""


class RowsUnknown(NotImplementedError):
    """A layer's samples cannot be told apart, or its function is not the one that was expected.

    Attributes:
        parameters: the names of its parameters; `Capture.give_up` lets them take the slow way.
    """

    def __init__(self, message: str, parameters: tuple[str, ...]) -> None:
        super().__init__(message)
        self.parameters = parameters


class TappedLayer:
    """A layer with a tap: its kind (None: it is run again), and the names of its own parameters by attribute."""

    def __init__(self, module: nn.Module, kind: Kind | None, own: dict[str, str]) -> None:
        self.module, self.kind, self.own = module, kind, own
        self.flat: bool | None = None  # a routed layer's two-dimensional output betrays itself by changing

    def refuse(self, why: str) -> RowsUnknown:
        names = tuple(self.own.values())
        return RowsUnknown(f"the layer of {names[0]} {why}", names)


class _Tap(torch.autograd.Function):
    """The identity of the first `count` tensors; the others are kept for `receive(kept, gradients)`."""

    @staticmethod
    def forward(ctx, leaf, receive, count, *tensors):
        ctx.save_for_backward(*tensors[count:])
        ctx.receive = receive
        return tuple(output.detach() for output in tensors[:count])

    @staticmethod
    def backward(ctx, *gradients):
        kept = ctx.saved_tensors  # once: under checkpointing the first look recomputes, a second one is an error
        ctx.receive(kept, gradients)
        passed = [d if needed else None for d, needed in zip(gradients, ctx.needs_input_grad[3:], strict=False)]
        return torch.zeros(()), None, None, *passed, *[None] * len(kept)


def place(capture, rows, leaf, layer, receive, module, arguments, named, output):
    """Forward hook: `output` behind a tap. An embedding that serves the whole batch at once is spread over it first.

    What cannot be read is refused when its gradient comes, not here: of some passes (DoRA's weight norm) none does.
    """
    if not torch.is_grad_enabled() or capture.replaying:
        return None
    outputs, tap = [t for t in tensors(output) if t.is_floating_point()], partial(_Tap.apply, leaf)
    try:
        if layer.kind is None:
            call = Call(module, layer.own, rows, arguments, named, tensors(output))
            report = partial(_run_again, capture, layer, call, receive)
            placed = tap(report, len(outputs), *outputs, *call.tensors, *(t.detach() for t in tensors(output)))
        else:
            layer_input, kind = used(module, layer.kind, arguments, named, output)
            layout = _layout(rows, layer, layer_input, output)
            if layout == "shared":
                output, layer_input = (t.expand(rows.samples, *t.shape[1:]) for t in (output, layer_input))
            report = partial(_report, capture, rows, layout, layer, kind, receive)
            placed = tap(report, 1, output, layer_input)
    except ValueError as error:
        placed = tap(partial(_refuse, capture, layer.refuse(str(error))), len(outputs), *outputs)
    return _put_back(output, placed)


def _put_back(output, placed):
    """The layer's output, tuple or not, with the tensors that have a tap in their places."""
    leaves, tree = pytree.tree_flatten(output)
    remaining = iter(placed)
    is_placed = [isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in leaves]
    return pytree.tree_unflatten(
        [next(remaining) if p else leaf for p, leaf in zip(is_placed, leaves, strict=True)], tree
    )


def _layout(rows: Rows, layer: TappedLayer, layer_input: torch.Tensor, output: torch.Tensor) -> str:
    layout = rows.layout(output)
    looks_up = isinstance(layer.module, nn.Embedding)
    if layout == "shared" and not looks_up:  # DeBERTa's projections of distances: the model counts on [1, ...]
        layout = None
    if looks_up and layer_input.ndim == 1:  # positions, for all samples at once
        layout = None
    if output.ndim == 2 and rows.samples > 1 and 1 not in rows.tokens and layout:
        if layer.flat not in (None, layout == "flat"):
            layout = None
        layer.flat = layout == "flat"
    if layout is None:
        shape = list(output.shape)
        raise ValueError(f"gave {shape} for {rows.samples} samples: its rows cannot be told apart")
    return layout


def _refuse(capture, error, kept, gradients):
    capture.unknown.append(error)


@torch.no_grad()
def _report(capture, rows, layout, layer, kind, receive, kept, gradients):
    if not capture.listening:
        return
    (layer_input,), (gradient,) = kept, gradients
    with torch.autocast(gradient.device.type, enabled=False):
        d, x = (rows.split(tensor, layout) for tensor in (gradient, layer_input))
        d = d.reshape(len(d), -1, gradient.shape[-1])
        x = x if isinstance(layer.module, nn.Embedding) else x.reshape(len(d), -1, layer_input.shape[-1])
        for term in kind(layer.module, x, d):
            if isinstance(term, Factors) and rows.lengths is not None and term.inputs.shape[1] == rows.longest:
                term = replace(term, lengths=rows.lengths)
            if term.attribute in layer.own:
                receive(layer.own[term.attribute], term)


def _run_again(capture, layer, call, receive, kept, gradients):
    if not capture.listening:
        return
    capture.replaying = True
    try:
        for term in call.terms(kept, gradients):
            if term.attribute in layer.own:
                receive(layer.own[term.attribute], term)
    finally:
        capture.replaying = False
