"""How samples go through the model: at once, packed into long rows, or fewer at a time once memory ran out."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gradex_fast.batch import Batch, length_batches, longest_first
from gradex_fast.types import UNSUPERVISED


class Pieces:
    """Batches of which each is cut so that a piece, padded or one packed row, holds at most so many tokens.

    Args:
        packed: tokens of a packed row; None: pieces are padded, and a batch is one piece until `halve` is called.

    A sample longer than that has a piece of its own.
    """

    def __init__(self, packed: int | None = None) -> None:
        self.packed, self.tokens = packed is not None, packed

    def of(self, batch: Batch) -> list[Batch]:
        """The pieces of a padded batch; together they hold every sample once."""
        if self.tokens is None:
            return [batch]
        lengths = batch["attention_mask"].sum(1).tolist()
        if self.packed:
            return [packed_row(batch, rows, lengths) for rows in first_fit(lengths, self.tokens)]
        parts = length_batches(lengths, self.tokens)
        return [{name: _cut(t[rows], lengths[rows[0]]) for name, t in batch.items()} for rows in parts]

    def halve(self, piece: Batch) -> bool:
        """A piece did not fit: from now on they are half as large. Whether that is possible."""
        self.tokens = piece["input_ids"].numel() // 2
        return samples(piece) > 1


def samples(piece: Batch) -> int:
    """How many a padded batch or a packed row holds."""
    return int((piece["position_ids"] == 0).sum()) if "position_ids" in piece else len(piece["input_ids"])


def packed_row(batch: Batch, rows: Sequence[int], lengths: Sequence[int]) -> Batch:
    """Some samples of a right-padded batch, one after the other in a row [1, total], without padding or mask.

    position_ids start at 0 with every sample; its first token is never predicted, so that no sample is the context of
    another's.
    """
    joined = {
        name: torch.cat([batch[name][row, : lengths[row]] for row in rows])[None] for name in ("input_ids", "labels")
    }
    positions = torch.cat([torch.arange(lengths[row], device=joined["labels"].device) for row in rows])[None]
    labels = joined["labels"].masked_fill(positions == 0, UNSUPERVISED)
    return {"input_ids": joined["input_ids"], "labels": labels, "position_ids": positions}


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices in rows of at most `capacity`, longest first, each in the first row that has room (11/9 of the best)."""
    rows: list[list[int]] = []
    free: list[int] = []
    for index in longest_first(lengths):
        place = next((row for row, room in enumerate(free) if lengths[index] <= room), len(rows))
        if place == len(rows):
            rows.append([])
            free.append(capacity)
        rows[place].append(index)
        free[place] -= lengths[index]
    return rows


def _cut(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """Without the columns that are padding in all rows; a classifier's labels have none."""
    return tensor[:, :length] if tensor.ndim > 1 else tensor
