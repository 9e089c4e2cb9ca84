"""What work costs: passes through the model, FLOPs and wall time (the paper's Appendix B, Tables 2 and 7)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from functools import reduce
from operator import add
from typing import Any

from gradex_fast.flops import PassFlops, pass_flops, total
from gradex_fast.recipe import Recipe
from gradex_fast.sections import TrainRecipe
from gradex_fast.train import total_steps
from gradex_fast.types import Example


@dataclass(frozen=True)
class Cost:
    """Passes through the model, arithmetic and wall time; a row that goes through twice counts twice.

    Attributes:
        forward_rows, forward_tokens: rows, and their tokens without padding, in forward passes.
        backward_rows, backward_tokens: the same in backward passes.
        seconds: wall time; NaN where nobody noted it.
        model_flops: of the passes (`flops.PassFlops`); NaN where they are not known.
        own_flops: of the sketch and of the solver.
    """

    forward_rows: int = 0
    forward_tokens: int = 0
    backward_rows: int = 0
    backward_tokens: int = 0
    seconds: float = 0.0
    model_flops: float = 0.0
    own_flops: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def times(self, factor: int) -> Cost:
        return Cost(*(factor * value for value in astuple(self)))

    def taking(self, seconds: float) -> Cost:
        """The same in so much time."""
        return replace(self, seconds=seconds)

    @property
    def flops(self) -> float:
        return self.model_flops + self.own_flops

    def values(self) -> dict[str, Any]:
        """JSON values; null for what is not known."""
        named = {**asdict(self), "flops": self.flops}
        return {name: value if math.isfinite(value) else None for name, value in named.items()}


NOTHING = Cost()


def together(costs: Iterable[Cost]) -> Cost:
    return reduce(add, costs, NOTHING)


def tokens(examples: Sequence[Example]) -> int:
    return sum(len(example.input_ids) for example in examples)


@dataclass(frozen=True)
class Passes:
    """What passes of one model over rows cost, without the time."""

    flops: PassFlops

    @classmethod
    def of(cls, recipe: Recipe) -> Passes:
        return cls(pass_flops(recipe.model, recipe.sketch))

    def forward(self, examples: Sequence[Example], head: bool = True) -> Cost:
        """One forward pass over each; without `head` no logits are formed."""
        flops = total(self.flops.forward, examples, head)
        return Cost(forward_rows=len(examples), forward_tokens=tokens(examples), model_flops=flops)

    def forward_backward(self, examples: Sequence[Example]) -> Cost:
        """One forward pass, and one backward pass to all trained parameters, over each."""
        return self._both(examples, total(self.flops.backward, examples))

    def sketch(self, examples: Sequence[Example]) -> Cost:
        """One sketching pass over each."""
        own = total(self.flops.sketch, examples)
        return replace(self._both(examples, total(self.flops.slopes, examples)), own_flops=own)

    def training(
        self, examples: Sequence[Example], recipe: TrainRecipe, steps: int | None = None, processes: int = 1
    ) -> Cost:
        """One fine-tuning on these rows; a part of an epoch by the mean row.

        Args:
            steps: where it ended; None: all of the recipe's. processes: that trained together.
        """
        if not examples:
            return NOTHING
        step = recipe.batch_size * recipe.accumulation * processes
        epochs, rest = divmod(steps or total_steps(len(examples), recipe, processes), math.ceil(len(examples) / step))
        rows, once = epochs * len(examples) + rest * step, self.forward_backward(examples)
        size = round(rows * once.forward_tokens / len(examples))
        return Cost(rows, size, rows, size, model_flops=rows / len(examples) * once.model_flops)

    def _both(self, examples: Sequence[Example], backward: float) -> Cost:
        rows, size = len(examples), tokens(examples)
        return Cost(rows, size, rows, size, model_flops=total(self.flops.forward, examples) + backward)
