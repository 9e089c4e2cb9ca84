"""The oracle: a forward and a backward pass for every sample alone. Obviously correct, but slow."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from gradex_fast.batch import Batch
from gradex_fast.reference.sketch import project
from gradex_fast.types import UNSUPERVISED

TOLERANCE = 1e-5
"""Of a float32 gradient. The oracle is float32 too, and sums in another order: on one CPU its own error against float64
is 3.5e-6 where a row's gradient mostly cancels (Gemma-2, LoRA on attention), and there the sketch's is 1.7e-6."""


def log_probabilities(model: nn.Module, row: Batch) -> torch.Tensor:
    """log p of each supervised label of a batch of one, float64 [tokens]."""
    labels = row["labels"][0]
    inputs = {"input_ids": row["input_ids"], "attention_mask": row["attention_mask"]}
    if labels.ndim == 0:
        return model(**inputs).logits[0].double().log_softmax(-1)[labels][None]
    if model.config.is_encoder_decoder:
        shifted = torch.cat([torch.zeros(1, dtype=torch.long), labels[:-1].clamp(min=0)])
        logits = model(**inputs, decoder_input_ids=shifted[None]).logits[0]
        places = [(t, t) for t in range(len(labels))]
    else:
        logits = model(**inputs).logits[0]
        places = [(t - 1, t) for t in range(1, len(labels))]
    found = [logits[a].double().log_softmax(-1)[labels[b]] for a, b in places if labels[b] != UNSUPERVISED]
    return torch.stack(found)


def margin_of(log_p: torch.Tensor, kind: str) -> torch.Tensor:
    """h straight from its definition, log p / (1 - p), differentiable; or ℓ for `kind` "loss"."""
    if kind == "loss":
        return -log_p.mean()
    if kind == "sequence":
        p = torch.exp(log_p.mean())
        return torch.log(p / (1 - p))
    return torch.log(log_p.exp() / (1 - log_p.exp())).mean()


def oracle(model: nn.Module, batch: Batch, kind: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Per-sample gradients of h, by parameter [n, elements], h [n] and ℓ [n]: one row at a time, with its padding."""
    model.eval()
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    rows, margins, losses = [], [], []
    for i in range(len(batch["input_ids"])):
        log_p = log_probabilities(model, {key: value[i : i + 1] for key, value in batch.items()})
        margin = margin_of(log_p, kind)
        found = torch.autograd.grad(margin, list(named.values()), allow_unused=True)
        rows.append([torch.zeros_like(p) if g is None else g for p, g in zip(named.values(), found, strict=True)])
        margins.append(margin.item())
        losses.append(-log_p.mean().item())
    columns = zip(*rows, strict=True)
    gradients = [torch.stack(column).double().flatten(1).numpy() for column in columns]
    return dict(zip(named, gradients, strict=True)), np.array(margins), np.array(losses)


def sketched(
    gradients: dict[str, np.ndarray],
    dim: int,
    seed: int = 0,
    distribution: str = "gaussian",
    widths: dict[str, int] | None = None,
) -> np.ndarray:
    """Gradients times the specification's P, float64 [n, dim]. `widths`: last dimensions, for TensorSketch."""
    plan = {"seed": seed, "dim": dim, "distribution": distribution}
    return sum(project(rows, name=name, width=(widths or {}).get(name), **plan) for name, rows in gradients.items())


def error(found: np.ndarray, truth: np.ndarray) -> float:
    """The largest relative error of a row."""
    return float((np.linalg.norm(found - truth, axis=1) / np.linalg.norm(truth, axis=1)).max())
