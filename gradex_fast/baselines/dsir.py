"""DSIR: importance weights of hashed n-grams (Xie, Santurkar, Ma and Liang, NeurIPS 2023, arXiv 2302.03169).

A row's features are the counts z of its unigrams and bigrams in 10,000 buckets. Both the target and the raw rows are
bags of n-grams, p(z) = Π_b γ[b]^z[b] with γ = all counts over their sum (§3 of the paper), so that

    log w_i = Σ_b z_i[b] (log γ_target[b] - log γ_raw[b]).

Each γ is raised by 1e-8 before its logarithm, as in the authors' package `data-selection`.

Three things are not the paper's. N-grams are of token ids, not of words: rows are kept as tokens, whatever columns they
came from; special tokens and answers are among them. The hash is splitmix64, not SHA-256. And the paper resamples
rows, all cut to one length, while a source is taken or left as a whole here: its score is minus the mean over its rows
of log w_i / (n-grams of row i), so that long rows do not decide alone. `resample` is the paper's way, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradex_fast.baselines.rival import Scored, by_source, source_examples, target_examples
from gradex_fast.state import Run
from gradex_fast.types import Example

BUCKETS = 10_000
SMOOTHING = 1e-8


def dsir(run: Run, buckets: int = BUCKETS) -> Scored:
    """No pass through any model. By itself it keeps sources that look more like the target than the pool does."""
    features = [buckets_of(example, buckets) for example in source_examples(run)]
    difference = log_ratio(features, [buckets_of(example, buckets) for example in target_examples(run)], buckets)
    weights = log_weights(features, difference)
    lengths = np.array([max(1, len(row)) for row in features])
    return by_source(run, weights / lengths, natural=0.0)


def buckets_of(example: Example, buckets: int = BUCKETS) -> np.ndarray:
    """The bucket of every unigram and bigram of token ids: int64 [2 t - 1]."""
    ids = example.input_ids.astype(np.uint64)
    single = _mixed(ids + np.uint64(1))
    return np.concatenate([single, _mixed(single[:-1] ^ ids[1:])]).astype(np.uint64) % np.uint64(buckets)


def log_ratio(raw: Sequence[np.ndarray], target: Sequence[np.ndarray], buckets: int = BUCKETS) -> np.ndarray:
    """log γ_target - log γ_raw [buckets]."""
    shares = []
    for rows in (target, raw):
        counts = np.bincount(np.concatenate(rows).astype(np.int64), minlength=buckets)
        shares.append(np.log(counts / counts.sum() + SMOOTHING))
    return shares[0] - shares[1]


def log_weights(rows: Sequence[np.ndarray], difference: np.ndarray) -> np.ndarray:
    """log w_i [n]."""
    return np.array([difference[row].sum() for row in rows])


def resample(weights: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` rows without replacement, in proportion to their weights: Gumbel top-k of log w (§3, algorithm 1)."""
    noisy = weights + np.random.default_rng(seed).gumbel(size=len(weights))
    return np.sort(np.argsort(-noisy, kind="stable")[:count])


def _mixed(values: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser, modulo 2⁶⁴."""
    with np.errstate(over="ignore"):
        z = values + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
