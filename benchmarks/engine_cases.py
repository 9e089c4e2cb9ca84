"""GPT-2 with random weights, batches for it, and the passes that `bench_sketch.py` times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from gradex_fast.batch import Batch
from gradex_fast.bench import models
from gradex_fast.modules import trainable
from gradex_fast.types import UNSUPERVISED, Example

LONGEST, MEAN = 512, 100
"""Tokens of Alpaca's rows, about."""

LORA_PARAMETERS = 884_736
"""Rank 16 on every attention's c_attn and c_proj of GPT-2."""


@dataclass(frozen=True)
class Case:
    """A model and the shape of its batches.

    Attributes:
        rank: of LoRA on every attention's c_attn and c_proj; None: every parameter of the model.
        supervised: share of each row's tokens, at its end.
        quick: a model of two thin layers in place of GPT-2.
    """

    name: str
    rank: int | None = 16
    rows: int = 8
    tokens: int = 128
    supervised: float = 1.0
    quick: bool = False
    device: str = "cpu"

    def tiny(self) -> Case:
        return replace(self, rows=2, tokens=16, quick=True)


LORA = Case("LoRA")
FULL = Case("full", rank=None, rows=16)
COMPLETIONS = Case("completions", supervised=0.25)


def make_model(case: Case) -> nn.Module:
    """GPT-2, or the tiny one, with random weights; LoRA's are 884,736 parameters at rank 16."""
    adapter = {"adapter": "full"} if case.rank is None else {"rank": case.rank, "targets": r".*attn\.(c_attn|c_proj)"}
    with models.recipe_of("tiny" if case.quick else "gpt2", **adapter) as recipe:
        model = models.make_model(recipe, case.device)
    count = sum(parameter.numel() for parameter in trainable(model).values())
    if case.rank == 16 and not case.quick:
        assert count == LORA_PARAMETERS, count
    return model


def make_batch(case: Case, seed: int = 0) -> Batch:
    return models.make_batch("causal-lm", case.rows, case.tokens, case.device, case.supervised, seed)


def rows_like_alpaca(count: int, scale: float = 1.0, seed: int = 0) -> list[Example]:
    """Log-normal lengths of mean 100, cut at 512 (times `scale`), the longest there; the last 60 % supervised."""
    draw = np.random.default_rng(seed)
    lengths = np.clip(draw.lognormal(np.log(MEAN) - 0.72**2 / 2, 0.72, count), 8, LONGEST)
    lengths[0] = LONGEST
    examples = []
    for index, length in enumerate(np.maximum(2, scale * lengths).astype(int)):
        ids = draw.integers(1, 1000, length).astype(np.int32)
        labels = np.where(np.arange(length) < 0.4 * length, UNSUPERVISED, ids).astype(np.int32)
        examples.append(Example(f"row/{index}", ids, labels, ""))
    return examples


def one_by_one(model: nn.Module, batch: Batch, project: Callable[[str, torch.Tensor], None]) -> None:
    """The rival that every framework has: a pass for every sample, its gradients projected by a stored P."""
    parameters = trainable(model)
    for row in range(len(batch["input_ids"])):
        loss = model(**{name: tensor[row : row + 1] for name, tensor in batch.items()}).loss
        for name, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
            project(name, gradient.reshape(1, -1))


def with_hooks(model: nn.Module, batch: Batch, project: Callable[[str, torch.Tensor], None]) -> None:
    """The rival of the per-sample-gradient libraries: one pass, [n, p] gradients of Linears by einsum, a stored P."""

    def watch(name: str, layer: nn.Linear, arguments: tuple, output: torch.Tensor) -> None:
        x = arguments[0].detach()
        output.register_hook(lambda d: project(name, torch.einsum("nto,ntc->noc", d, x).flatten(1)))

    linears = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    trained = {f"{name}.weight": layer for name, layer in linears.items() if layer.weight.requires_grad}
    hooks = [layer.register_forward_hook(partial(watch, name)) for name, layer in trained.items()]
    model(**batch).loss.backward()
    model.zero_grad(set_to_none=True)
    for hook in hooks:
        hook.remove()


class StoredProjection:
    """P [p, d] in memory, a block of rows for every parameter. Attributes: bytes: of all of them."""

    def __init__(self, model: nn.Module, dim: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self._blocks = {
            name: torch.randn(parameter.numel(), dim, generator=generator).to(parameter.device)
            for name, parameter in trainable(model).items()
        }
        self.bytes = sum(4 * block.numel() for block in self._blocks.values())
        self.sketches: torch.Tensor | float = 0.0

    def __call__(self, name: str, gradients: torch.Tensor) -> None:
        self.sketches = self.sketches + gradients @ self._blocks[name]
