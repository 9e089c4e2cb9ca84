"""TRAK's scores (arXiv 2303.14186) with `Sketcher` as the engine: what every training row does to every target row.

    python examples/attribution/trak_scores.py

trains two small classifiers on 200 rows, 20 of them with the wrong label, and finds these. Nothing is downloaded.

    φ = Pᵀ∇h / √d,  h = log(p / (1 - p)),  Q = 1 - p = -expm1(-loss)
    τ = Φ (ΦᵀΦ)⁻¹ φ_target, averaged over checkpoints, times the mean of Q

For a classifier p is the probability of the label, and these are the scores of traker's `TRAKer`, which divides every
checkpoint's (ΦᵀΦ)⁻¹ by the size of its entries, so that none outweighs the others. For a language model the same lines
hold with p = exp(-loss), the loss being the mean over a row's supervised tokens; `TRAKer` needs a model output of one's
own for that. With `margin="token"`, h is the mean of the tokens' own log-odds; Q stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

import gradex_fast as gf

Batch = Mapping[str, torch.Tensor]


def features(sketcher: gf.Sketcher, batches: Iterable[Batch]) -> gf.Sketches:
    """Of all rows of the batches, in their order."""
    parts = [sketcher(batch) for batch in batches]
    return gf.Sketches(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("g", "margin", "loss")))


def trak_scores(
    checkpoints: Sequence[torch.nn.Module], train: Sequence[Batch], target: Sequence[Batch], *, dim: int
) -> np.ndarray:
    """Float64 [training rows, target rows], up to one factor; where positive, the row raises the target's log-odds."""
    scores, misses = 0.0, 0.0
    for seed, model in enumerate(checkpoints):  # each with a P of its own
        sketcher = gf.Sketcher(model, dim=dim, seed=seed)
        rows, targets = features(sketcher, train), features(sketcher, target)
        phi = rows.g.astype(np.float64)
        inverse = np.linalg.pinv(phi.T @ phi, hermitian=True)
        scores += phi @ (inverse / abs(inverse).mean()) @ targets.g.T / len(checkpoints)
        misses -= np.expm1(-rows.loss) / len(checkpoints)
    return scores * misses[:, None]


def fitted(batches: Sequence[Batch], seed: int) -> torch.nn.Module:
    """A small classifier, trained on the batches."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(vocab_size=50, **sizes))
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for batch in [*batches] * 4:
        model(**batch).loss.backward()
        optimiser.step(), optimiser.zero_grad()
    return model


def made(count: int, seed: int) -> list[Batch]:
    """Batches of 20 rows of 8 words; those of the second class have other words than those of the first."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    ids = torch.randint(25, (count, 8), generator=generator) + 25 * labels[:, None]
    pairs = zip(ids.split(20), labels.split(20), strict=True)
    return [{"input_ids": i, "attention_mask": torch.ones_like(i), "labels": y} for i, y in pairs]


def main() -> None:
    train, target = made(200, seed=0), made(100, seed=1)
    train[0]["labels"] = 1 - train[0]["labels"]
    scores = trak_scores([fitted(train, seed) for seed in range(2)], train, target, dim=16).mean(1)
    print(f"of the 20 rows of lowest score, {(scores.argsort()[:20] < 20).sum()} have a wrong label")


if __name__ == "__main__":
    main()
