"""Taps: (input, output gradient) of every trainable layer during one backward pass (DESIGN §4). No random numbers.

A tap is an identity on a layer's output whose backward sees the output gradient. While taps are on, the layer's own
parameters are frozen, so autograd never forms a weight gradient; it works under gradient checkpointing, and a parameter
that is used twice is reported twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers.pytorch_utils import Conv1D

from gradex_fast.model import trainable


@dataclass(frozen=True)
class Factors:
    """One term of a parameter's per-sample gradient: element offset + o · p + c gets Σ_t grads[i,t,o] · inputs[i,t,c].

    p is the parameter's last dimension (`width`), so that o and c are the same in its whole gradient.

    Attributes:
        attribute: which of the layer's parameters. inputs: [n, t, p]. grads: [n, t, q].
    """

    attribute: str
    inputs: torch.Tensor
    grads: torch.Tensor
    offset: int = 0


Receiver = Callable[[str, Factors], None]
"""Called with a parameter's name and one term of its gradient, in the backward pass."""


def width(parameter: torch.Tensor) -> int:
    """The elements of one of its lines: its last dimension."""
    return parameter.shape[-1] if parameter.ndim else 1


def linear(layer: nn.Linear, x: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """y = x Wᵀ + b."""
    yield Factors("weight", x, d)
    yield Factors("bias", d, _ones(d))


def conv1d(layer: Conv1D, x: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """y = x W + b: the weight is stored [p, q], so the two factors change places."""
    yield Factors("weight", d, x)
    yield Factors("bias", d, _ones(d))


def embedding(layer: nn.Embedding, ids: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """y = W[id]: one term per row that occurs; no dense [vocabulary, width] gradient."""
    flat, gradients = ids.reshape(len(d), -1), d.float()
    for row in flat.unique().tolist():
        if row != layer.padding_idx:
            hits = (flat == row).to(gradients.dtype)
            rows = torch.einsum("nt,ntw->nw", hits, gradients)[:, None, :]
            yield Factors("weight", rows, _ones(rows), offset=row * layer.embedding_dim)


def layer_norm(layer: nn.LayerNorm, x: torch.Tensor, d: torch.Tensor) -> Iterator[Factors]:
    """y = γ x̂ + β, x̂ = (x - mean) / deviation."""
    x, d = x.float(), d.float()
    normal = F.layer_norm(x, x.shape[-1:], eps=layer.eps)
    rows = (d * normal).sum(1, keepdim=True)
    yield Factors("weight", rows, _ones(rows))
    yield Factors("bias", d, _ones(d))


LAYER_KINDS: dict[type, Callable[..., Iterator[Factors]]] = {
    nn.Linear: linear,
    Conv1D: conv1d,
    nn.Embedding: embedding,
    nn.LayerNorm: layer_norm,
}
"""Exact types only: a subclass may compute something else (Gemma scales its embeddings)."""

_NO_BATCH = "relative_attention_bias"
"""T5's table of distances gives [query, key, head]: its leading dimension is no batch, even where it has n rows."""


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
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        uses = [
            (layer, _has_tap(path, layer), {a: names[id(p)] for a, p in own if id(p) in names})
            for path, layer in model.named_modules()
            if (own := list(layer.named_parameters(recurse=False)))
        ]
        # Of a tied parameter the taps must see every use; otherwise autograd is asked for all of them.
        unseen = {name for _, tapped, own in uses if not tapped for name in own.values()}
        seen = [(layer, {a: name for a, name in own.items() if name not in unseen}) for layer, _, own in uses]
        self._layers = [(layer, own) for layer, own in seen if own]
        self.slow = {name: p for name, p in self.parameters.items() if name in unseen}

    @contextmanager
    def taps(self, samples: int, receive: Receiver) -> Iterator[torch.Tensor]:
        """While open, the model's forward pass places taps. Yields the leaf that all of them hang on.

        ``torch.autograd.grad(loss, leaf)`` then runs the backward pass and calls `receive` for every term.
        """
        tapped = [p for name, p in self.parameters.items() if name not in self.slow]
        leaf = torch.zeros((), requires_grad=True)
        hooks = [
            layer.register_forward_hook(partial(_place, samples, leaf, own, receive), with_kwargs=True)
            for layer, own in self._layers
        ]
        try:
            for parameter in (*tapped, *self._others):
                parameter.requires_grad_(False)
            yield leaf
        finally:
            for hook in hooks:
                hook.remove()
            for parameter in (*tapped, *self._others):
                parameter.requires_grad_(True)


def _has_tap(path: str, layer: nn.Module) -> bool:
    shape = getattr(layer, "normalized_shape", ())  # a norm over two dimensions has no [t, width]
    return type(layer) in LAYER_KINDS and len(shape) < 2 and not path.endswith(_NO_BATCH)


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


def _place(samples, leaf, own, receive, layer, arguments, named, output):
    """Forward hook: `output` behind a tap. A layer that serves the whole batch at once is spread over it first."""
    layer_input = arguments[0] if arguments else next(iter(named.values()))
    no_rows = isinstance(layer, nn.Embedding) and layer_input.ndim == 1  # positions, for all samples at once
    if not no_rows and output.shape[0] == 1 and samples > 1:
        output, layer_input = (tensor.expand(samples, *tensor.shape[1:]) for tensor in (output, layer_input))
    if no_rows or output.shape[0] != samples:
        name = next(iter(own.values()))
        raise NotImplementedError(
            f"the layer of {name} gave {list(output.shape)} for {samples} samples: its rows cannot be told apart"
        )
    return _Tap.apply(output, leaf, layer_input.detach(), partial(_report, layer, own, receive))


def _report(layer, own, receive, layer_input, gradient):
    with torch.no_grad():
        n = len(gradient)
        d = gradient.reshape(n, -1, gradient.shape[-1])
        x = layer_input if isinstance(layer, nn.Embedding) else layer_input.reshape(n, -1, layer_input.shape[-1])
        for factors in LAYER_KINDS[type(layer)](layer, x, d):
            if factors.attribute in own:
                receive(own[factors.attribute], factors)


def _ones(like: torch.Tensor) -> torch.Tensor:
    """[n, t, 1]: the one output of a flat parameter, such as a bias."""
    return like.new_ones(*like.shape[:2], 1)
