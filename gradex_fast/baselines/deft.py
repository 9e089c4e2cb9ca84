"""DEFT: cross-task nearest neighbours (Ivison, Smith, Hajishirzi and Dasigi, Findings of ACL 2023, arXiv 2212.00196).

The pretrained model's last hidden states, averaged over a row's tokens, stand for it; every target row retrieves its k
nearest training rows, and the union of what is retrieved is trained on (§3 of the paper). Das and Khetan (2024) call
core sets of clusters DEFT too; the GRADEX paper's is by feature similarity (its authors' select_feature_similarity.py).

Here a source is taken or left as a whole: its score is minus the share of retrievals that its rows get, that is
minus the mean over its rows of (retrievals of the row / target rows). Other differences: neighbours are by cosine and
exact (the paper: an approximate index over Euclidean distances); the states are of the whole row with its answer, as in
the GRADEX authors' code, in which the features are those of the last decoder state; k is a tenth of the pool at most,
for pools here are small (the paper: 500 of some millions).
"""

from __future__ import annotations

import numpy as np

from gradex_fast.baselines.cosine import unit
from gradex_fast.baselines.features import mean_states
from gradex_fast.baselines.rival import Scored, by_source, source_examples, target_examples
from gradex_fast.model import load_model
from gradex_fast.state import Run

NEIGHBOURS = 500
_CHUNK = 1 << 24
"""Entries of one [queries, rows] block of cosines: 128 MiB."""


def deft(run: Run, neighbours: int | None = None, trained: bool = False) -> Scored:
    """One forward pass over all rows. By itself it keeps sources that are retrieved more often than by chance.

    Args:
        neighbours: k; None: 500, or a tenth of the rows if that is less.
        trained: by the states at θ* in place of the pretrained model's (the GRADEX authors' features are those of a
            fine-tuned model); a model of random weights has no other features worth the name.
    """
    rows, target = source_examples(run), target_examples(run)
    folder = run.path / "meta" if trained else None
    model = load_model(run.recipe.model, run.recipe.seed, run.device, trained=folder)
    options = {"pad_id": run.pad_id, "batch_tokens": run.recipe.sketch.batch_tokens}
    states = mean_states(model, [*rows, *target], **options)
    k = min(neighbours or min(NEIGHBOURS, -(-len(rows) // 10)), len(rows))
    counts = retrievals(states[: len(rows)], states[len(rows) :], k)
    return by_source(
        run, counts / len(target), natural=k / len(rows), cost=run.passes.forward([*rows, *target], head=False)
    )


def retrievals(rows: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """How often each of the rows [n, d] is among the k nearest to a query [q, d] by cosine: int64 [n].

    Of equally near rows the first is taken; a row without length has cosine 0.
    """
    found, step = np.zeros(len(rows), np.int64), max(1, _CHUNK // len(rows))
    for start in range(0, len(queries), step):
        distance = -unit(queries[start : start + step]) @ unit(rows).T
        nearest = np.argsort(distance, axis=1, kind="stable")[:, :k]
        found += np.bincount(nearest.ravel(), minlength=len(rows))
    return found
