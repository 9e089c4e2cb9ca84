"""Samples to examples of token ids and labels, cut at ``max_length`` and counted. Knows no file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradex_fast.data.encode import Tokens, encode
from gradex_fast.data.files import Row
from gradex_fast.data.formats import Labelled, Sample
from gradex_fast.data_sections import DataRecipe
from gradex_fast.types import UNSUPERVISED, Example, Source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenise(
    name: str,
    rows: Sequence[Row],
    samples: Sequence[Sample],
    tokenizer: PreTrainedTokenizerBase,
    data: DataRecipe,
    format: str = "",
) -> Source:
    """Examples ``name/i`` of rows i; rows left without a supervised token are dropped.

    labels[0] is never supervised in a language model: nothing predicts the first token.
    """
    examples, truncated = [], 0
    for index, (ids, labels) in enumerate(encode(samples, tokenizer)):
        if cut := max(0, len(ids) - data.max_length):
            truncated += 1
            ids, labels = _cut(samples[index], ids, labels, tokenizer, data)
        if (labels != UNSUPERVISED).any():
            examples.append(_example(f"{name}/{index}", ids, labels, rows[index].values, cut))
    return Source(name, tuple(examples), truncated, dropped=len(rows) - len(examples), format=format)


def _cut(sample: Sample, ids: np.ndarray, labels: np.ndarray, tokenizer: Any, data: DataRecipe) -> Tokens:
    length = data.max_length
    if isinstance(sample, Labelled):
        return _cut_by_tokenizer(sample, tokenizer, length, data.truncation_side), labels
    if data.truncation_side == "right":
        return ids[:length].copy(), labels[:length].copy()
    labels = labels[-length:].copy()
    labels[0] = UNSUPERVISED
    return ids[-length:].copy(), labels


def _cut_by_tokenizer(sample: Labelled, tokenizer: Any, length: int, side: str) -> np.ndarray:
    """The tokenizer's own cut keeps its closing special tokens and shortens the longer of a pair."""
    texts = (sample.text,) if sample.pair is None else (sample.text, sample.pair)
    before, tokenizer.truncation_side = tokenizer.truncation_side, side
    try:
        ids = tokenizer(*texts, truncation=True, max_length=length)["input_ids"]
    finally:
        tokenizer.truncation_side = before
    return np.array(ids[:length], np.int32)  # no room for the special tokens: then it cuts nothing


def _example(name: str, ids: np.ndarray, labels: np.ndarray, row: dict[str, Any], cut: int) -> Example:
    content = ids.astype("<i4").tobytes() + labels.astype("<i4").tobytes()
    return Example(name, ids, labels, hashlib.blake2b(content).hexdigest()[:16], row, cut)
