"""Text to token ids and labels, cut at ``max_length`` and counted. Knows no file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradex_fast.data.chat import Conversation
from gradex_fast.data.files import Row
from gradex_fast.data.formats import Completion, Labelled, Sample
from gradex_fast.types import UNSUPERVISED, Example, Source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCH = 1000
"""Rows in one call: a fast tokenizer's encodings take some 100 bytes a token until it returns."""

Tokens = tuple[list[int], list[int]]


def tokenise(
    name: str,
    rows: Sequence[Row],
    samples: Sequence[Sample],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> Source:
    """Examples ``name/i`` of rows i; rows left without a supervised token are dropped.

    labels[0] is never supervised in a language model: nothing predicts the first token.
    """
    examples, truncated = [], 0
    for index, (ids, labels) in enumerate(_encode(samples, tokenizer)):
        truncated += len(ids) > max_length
        if len(ids) > max_length:
            ids, labels = _cut(samples[index], ids, labels, tokenizer, max_length)
        if any(label != UNSUPERVISED for label in labels):
            examples.append(_example(f"{name}/{index}", ids, labels, rows[index].values))
    return Source(name, tuple(examples), truncated, dropped=len(rows) - len(examples))


def _encode(samples: Sequence[Sample], tokenizer: Any) -> Iterator[Tokens]:
    encoders: dict[type, Callable] = {Completion: _completions, Conversation: _conversations, Labelled: _labelled}
    for start in range(0, len(samples), _BATCH):
        batch = samples[start : start + _BATCH]
        yield from encoders[type(batch[0])](batch, tokenizer)


def _completions(batch: Sequence[Completion], tokenizer: Any) -> Iterator[Tokens]:
    """BOS, where the tokenizer adds one, + prompt + completion + EOS, where there is one."""
    prompts = _ids([sample.prompt for sample in batch], tokenizer)
    completions = _ids([sample.completion for sample in batch], tokenizer)
    bos, eos = _bos(tokenizer), [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for prompt, completion in zip(prompts, completions, strict=True):
        context = prompt if (prompt + completion)[:1] == bos else bos + prompt
        answer = completion if completion[-1:] == eos else completion + eos
        yield _supervised(context + answer, [False] * len(context) + [True] * len(answer))


def _conversations(batch: Sequence[Conversation], tokenizer: Any) -> Iterator[Tokens]:
    """One pass over the whole text, as the model will read it; the template wrote BOS and EOS."""
    texts = [sample.text for sample in batch]
    coded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    for sample, ids, offsets in zip(batch, coded["input_ids"], coded["offset_mapping"], strict=True):
        spoken = [any(a <= start < b for a, b in sample.spans) for start, _ in offsets]
        yield _supervised(ids, spoken)


def _labelled(batch: Sequence[Labelled], tokenizer: Any) -> Iterator[Tokens]:
    ids: list[list[int]] = [[]] * len(batch)
    for paired in (False, True):
        rows = [i for i, sample in enumerate(batch) if (sample.pair is not None) == paired]
        texts = [[getattr(batch[i], field) for i in rows] for field in ("text", "pair")[: 1 + paired]]
        coded = tokenizer(*texts, verbose=False)["input_ids"] if rows else []
        for i, row in zip(rows, coded, strict=True):
            ids[i] = row
    yield from ((row, [sample.label]) for row, sample in zip(ids, batch, strict=True))


def _cut(sample: Sample, ids: list, labels: list, tokenizer: Any, max_length: int) -> Tokens:
    if not isinstance(sample, Labelled):
        return ids[:max_length], labels[:max_length]
    # The tokenizer's own cut keeps its closing special tokens and shortens the longer of a pair.
    texts = (sample.text,) if sample.pair is None else (sample.text, sample.pair)
    ids = tokenizer(*texts, truncation=True, max_length=max_length)["input_ids"]
    return ids[:max_length], labels  # no room for the special tokens: then it cuts nothing


def _supervised(ids: list[int], seen: list[bool]) -> Tokens:
    labels = [token if loss else UNSUPERVISED for token, loss in zip(ids, seen, strict=True)]
    return ids, [UNSUPERVISED, *labels[1:]]


def _ids(texts: list[str], tokenizer: Any) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]


def _bos(tokenizer: Any) -> list[int]:
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return bos if bos and tokenizer("")["input_ids"][:1] == bos else []


def _example(name: str, ids: list[int], labels: list[int], row: dict[str, Any]) -> Example:
    tokens, targets = np.asarray(ids, np.int32), np.asarray(labels, np.int32)
    content = tokens.astype("<i4").tobytes() + targets.astype("<i4").tobytes()
    return Example(name, tokens, targets, hashlib.blake2b(content).hexdigest()[:16], row)
