"""What a rival gives back: a selection, and what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from gradex_fast.costs import Cost
from gradex_fast.types import Selection


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
