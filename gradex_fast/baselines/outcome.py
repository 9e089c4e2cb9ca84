"""What a rival gives back: a selection, and what it cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass

from gradex_fast.sections import TrainRecipe
from gradex_fast.train import total_steps
from gradex_fast.types import Example, Selection


@dataclass(frozen=True)
class Cost:
    """Passes through the model and wall time; a row that goes through twice counts twice.

    Attributes:
        forward_rows, forward_tokens: rows, and their tokens without padding, in forward passes.
        backward_rows, backward_tokens: the same in backward passes.
        seconds: wall time; NaN where nobody noted it.
    """

    forward_rows: int = 0
    forward_tokens: int = 0
    backward_rows: int = 0
    backward_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


NOTHING = Cost()


@dataclass(frozen=True)
class Outcome:
    """A rival's choice.

    Attributes:
        cost: what the rival itself did.
        needs: stages of the run on which it builds, "meta", "sketch" or "estimate"; `cost` has none of theirs.
    """

    selection: Selection
    cost: Cost
    needs: tuple[str, ...] = ()


def tokens(examples: Sequence[Example]) -> int:
    return sum(len(example.input_ids) for example in examples)


def forward(examples: Sequence[Example]) -> Cost:
    """One forward pass over each."""
    return Cost(forward_rows=len(examples), forward_tokens=tokens(examples))


def forward_backward(examples: Sequence[Example]) -> Cost:
    """One forward and one backward pass over each."""
    rows, size = len(examples), tokens(examples)
    return Cost(rows, size, rows, size)


def training(examples: Sequence[Example], recipe: TrainRecipe) -> Cost:
    """One fine-tuning on these rows; tokens of a part of an epoch by the mean row."""
    steps, step = total_steps(len(examples), recipe), recipe.batch_size * recipe.accumulation
    epochs, rest = divmod(steps, math.ceil(len(examples) / step))
    rows = epochs * len(examples) + rest * step
    size = round(rows * tokens(examples) / len(examples))
    return Cost(rows, size, rows, size)
