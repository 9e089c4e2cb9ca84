"""Examples to padded tensors, and which examples share a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradex_fast.types import UNSUPERVISED, Example

Batch = dict[str, torch.Tensor]


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Right-padded input_ids, attention_mask [n, t] and labels; a classifier's labels are [n], others [n, t].

    The mask comes from the lengths, never from the pad token, so that pad = eos hides no EOS.
    """
    longest = max(len(example.input_ids) for example in examples)
    input_ids = torch.full((len(examples), longest), pad_id)
    mask = torch.zeros(len(examples), longest, dtype=torch.long)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        input_ids[row, :length] = torch.as_tensor(example.input_ids)
        mask[row, :length] = 1
    return {"input_ids": input_ids, "attention_mask": mask, "labels": _labels(examples, longest)}


def _labels(examples: Sequence[Example], longest: int) -> torch.Tensor:
    if all(len(example.labels) == 1 for example in examples):
        return torch.tensor([int(example.labels[0]) for example in examples])
    labels = torch.full((len(examples), longest), UNSUPERVISED)
    for row, example in enumerate(examples):
        labels[row, : len(example.labels)] = torch.as_tensor(example.labels)
    return labels


def longest_first(lengths: Sequence[int]) -> list[int]:
    """Indices by falling length; what fits in memory then fits at once, or never."""
    return sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


def next_batch(order: Sequence[int], lengths: Sequence[int], tokens: int) -> list[int]:
    """The leading indices of `order`, longest first: rows × longest ≤ `tokens` (one row may exceed it alone)."""
    return list(order[: max(1, tokens // max(1, lengths[order[0]]))])


def length_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """All indices in batches of similar length, each a `next_batch`."""
    order, batches = longest_first(lengths), []
    while order:
        batches.append(next_batch(order, lengths, tokens))
        order = order[len(batches[-1]) :]
    return batches
