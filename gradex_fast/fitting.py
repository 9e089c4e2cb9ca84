"""Batches that fit: as large as tokens and memory allow, and smaller from the moment memory runs out all the same."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from gradex_fast.batch import longest_first, next_batch
from gradex_fast.errors import GradexError
from gradex_fast.memory import out_of_memory
from gradex_fast.types import Example

_log = logging.getLogger(__name__)


class Budget:
    """What one pass may take. One that is handed from call to call remembers that memory ran out.

    Attributes:
        tokens: padded tokens at most; halved when a batch did not fit.
        memory: bytes at most beside the model, by an estimate; None: no limit but `tokens`.
    """

    def __init__(self, tokens: int, memory: int | None = None) -> None:
        self.tokens, self.memory = tokens, memory

    @classmethod
    def of(cls, tokens: int | Budget) -> Budget:
        return tokens if isinstance(tokens, Budget) else cls(tokens)


def in_batches(
    examples: Sequence[Example],
    budget: Budget,
    work: Callable[[list[int]], None],
    weigh: Callable[[Example], int] | None = None,
) -> None:
    """Call `work` with the indices of one batch after another, longest rows first, until every row had its turn.

    When memory runs out in `work`, the batch is halved and tried again: `work` may leave nothing half done.

    Args:
        weigh: bytes that a pass over one row takes; by token, the heaviest row's bound the others'.

    Raises:
        GradexError: a row does not fit by itself; the message names it and its length.
    """
    lengths = [len(example.input_ids) for example in examples]
    order, lowered = longest_first(lengths), False
    most = _tokens_in_memory(_heaviest(examples), budget, weigh) if order and weigh and budget.memory else budget.tokens
    while order:
        rows = next_batch(order, lengths, min(budget.tokens, most))
        if failure := failure_of(lambda rows=rows: work(rows)):
            _require_several([examples[row] for row in rows], failure)
            budget.tokens, lowered = len(rows) * lengths[rows[0]] // 2, True
            continue
        if lowered:
            _log.warning("memory ran out: from now on a batch has at most %d padded tokens", budget.tokens)
        order, lowered = order[len(rows) :], False


def _tokens_in_memory(heaviest: Example, budget: Budget, weigh: Callable[[Example], int]) -> int:
    found: list[int] = []
    if failure := failure_of(lambda: found.append(weigh(heaviest))):
        _require_several([heaviest], failure)
    return int(budget.memory * len(heaviest.input_ids) / max(1, found[0]))


def _heaviest(examples: Sequence[Example]) -> Example:
    """The longest row, with as many of its tokens supervised as in the row that has most: it bounds any batch's."""
    longest = max(examples, key=lambda example: len(example.input_ids))
    if len(longest.labels) == 1:
        return longest
    most = max(example.supervised for example in examples)
    labels = np.concatenate([longest.labels[:-most], longest.input_ids[-most:]]) if most else longest.labels
    return replace(longest, labels=labels)


def failure_of(work: Callable[[], None]) -> str | None:
    """What the lack of memory said, after all that `work` held has gone; None if it came to its end."""
    try:
        work()
        return None
    except (RuntimeError, MemoryError) as error:  # its traceback holds the pass's tensors, and ends with this block
        if not out_of_memory(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return said


def _require_several(examples: Sequence[Example], failure: str) -> None:
    if len(examples) == 1:
        (one,) = examples
        raise GradexError(
            f"sample {one.id} of {len(one.input_ids)} tokens does not fit in memory by itself ({failure}); "
            "lower data.max_length, or take a smaller model or dtype"
        )
