"""The shapes of a model's layers as the kernels see them, and tensors of such shapes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

CACHE = {"cpu": 64 << 20, "cuda": 256 << 20}
"""Bytes that no cache holds: five times an H100's, twice the last level of most CPUs."""

MOST_SETS = 64
"""Of small tensors; what comes next in a pass is in the cache as well."""


@dataclass(frozen=True)
class Shape:
    """One layer's sketch: inputs [n, t, p], grads [n, t, q]. Attributes: kind: of both tensors."""

    n: int
    t: int
    p: int
    q: int
    kind: torch.dtype = torch.bfloat16

    @property
    def size(self) -> int:
        """Elements of the parameter."""
        return self.p * self.q

    @property
    def bytes_read(self) -> int:
        """Of inputs and grads."""
        return self.n * self.t * (self.p + self.q) * self.kind.itemsize

    def tensors(self, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Fresh random inputs and grads."""
        return tuple(torch.randn(self.n, self.t, w, device=device, dtype=self.kind) for w in (self.p, self.q))

    def sets(self, cache: int) -> int:
        """So many sets of tensors that the first is out of the cache when its turn comes again; 2 to `MOST_SETS`."""
        return min(MOST_SETS, max(2, math.ceil(cache / self.bytes_read)))

    def rotating(self, device: str, cache: int = CACHE["cuda"]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [self.tensors(device) for _ in range(self.sets(cache))]

    def __str__(self) -> str:
        kind = str(self.kind).removeprefix("torch.")
        return f"{self.p} → {self.q}, {self.n} × {self.t} tokens, {kind}"


@dataclass(frozen=True)
class Layer:
    """A parameter [q, p] that is sketched, as its terms have it (`terms.Factors`).

    Attributes:
        kind: "matrix", "table" (looked up by rows) or "vector" (a bias or a scale, q = 1: summed over tokens first).
    """

    kind: str
    q: int
    p: int

    def __str__(self) -> str:
        return f"{self.p}" if self.kind == "vector" else f"{self.q} × {self.p}"


def layers_of(model: nn.Module) -> tuple[Counter[Layer], list[str]]:
    """How often each layer occurs among the trainable parameters, and the names of those that are no such layer."""
    found: Counter[Layer] = Counter()
    others = []
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if parameter.ndim > 2:
                others.append(f"{path}.{name}")
            elif parameter.ndim == 2:
                found[Layer("table" if isinstance(module, nn.Embedding) else "matrix", *parameter.shape)] += 1
            else:
                found[Layer("vector", 1, parameter.numel())] += 1
    return found, others
