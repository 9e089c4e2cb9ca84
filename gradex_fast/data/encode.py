"""Text to token ids and labels, whole rows. Knows no length and no file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gradex_fast.data.chat import Conversation
from gradex_fast.data.formats import Labelled, Sample
from gradex_fast.data.prompts import Completion
from gradex_fast.types import UNSUPERVISED

_BATCH = 1000
"""Rows in one call: a fast tokenizer's encodings take some 100 bytes a token until it returns."""

Tokens = tuple[np.ndarray, np.ndarray]
"""Ids and labels, int32 [t] each (a classifier's label: [1])."""


def encode(samples: Sequence[Sample], tokenizer: Any) -> Iterator[Tokens]:
    """Ids and labels of each sample; the samples are of one kind."""
    encoders: dict[type, Callable] = {Completion: _completions, Conversation: _conversations, Labelled: _labelled}
    for start in range(0, len(samples), _BATCH):
        batch = samples[start : start + _BATCH]
        yield from encoders[type(batch[0])](batch, tokenizer)


def _completions(batch: Sequence[Completion], tokenizer: Any) -> Iterator[Tokens]:
    """BOS, where the tokenizer adds one, + prompt + completion + EOS, where there is one."""
    prompts = _ids([sample.prompt for sample in batch], tokenizer)
    completions = _ids([sample.completion for sample in batch], tokenizer)
    bos, eos = _bos(tokenizer), [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for sample, prompt, completion in zip(batch, prompts, completions, strict=True):
        context = prompt if (prompt + completion)[:1] == bos else bos + prompt
        answer = completion if completion[-1:] == eos else completion + eos
        ids = np.array(context + answer, np.int32)
        yield _supervised(ids, np.arange(len(ids)) >= (0 if sample.everywhere else len(context)))


def _conversations(batch: Sequence[Conversation], tokenizer: Any) -> Iterator[Tokens]:
    """One pass over the whole text, as the model will read it; the template wrote BOS and EOS."""
    texts = [sample.text for sample in batch]
    coded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    for sample, ids, offsets in zip(batch, coded["input_ids"], coded["offset_mapping"], strict=True):
        yield _supervised(np.array(ids, np.int32), _in_spans(sample, np.array(offsets).reshape(-1, 2)))


def _in_spans(sample: Conversation, offsets: np.ndarray) -> np.ndarray:
    """bool [t]: the tokens of `offsets` [t, 2] that the loss is taken on."""
    seen, (start, end) = np.zeros(len(offsets), bool), offsets.T
    for a, b in sample.spans:
        seen |= ((end > a) if sample.reaching else (start >= a)) & (start < b)
    return seen


def _labelled(batch: Sequence[Labelled], tokenizer: Any) -> Iterator[Tokens]:
    ids: list[list[int]] = [[]] * len(batch)
    for paired in (False, True):
        rows = [i for i, sample in enumerate(batch) if (sample.pair is not None) == paired]
        texts = [[getattr(batch[i], field) for i in rows] for field in ("text", "pair")[: 1 + paired]]
        coded = tokenizer(*texts, verbose=False)["input_ids"] if rows else []
        for i, row in zip(rows, coded, strict=True):
            ids[i] = row
    for row, sample in zip(ids, batch, strict=True):
        yield np.array(row, np.int32), np.array([sample.label], np.int32)


def _supervised(ids: np.ndarray, seen: np.ndarray) -> Tokens:
    labels = np.where(seen, ids, np.int32(UNSUPERVISED))
    labels[:1] = UNSUPERVISED
    return ids, labels


def _ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def _bos(tokenizer: Any) -> list[int]:
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return bos if bos and tokenizer("")["input_ids"][:1] == bos else []
