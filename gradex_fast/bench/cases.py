"""What is timed: cases, and groups of them that take turns because they are compared with one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gradex_fast.bench.counts import Work
from gradex_fast.bench.turns import Call


@dataclass(frozen=True)
class Case:
    """One thing that is timed.

    Attributes:
        work: of a call. amounts: what a call gets done, by unit; result files have it per second.
        layers: of the model, that are such a call each.
    """

    name: str
    work: Work
    amounts: Mapping[str, float] = field(default_factory=dict)
    layers: int | None = None


@dataclass(frozen=True)
class Group:
    """Cases that take turns.

    Attributes:
        make: their calls by name, with all that they hold; it is let go before the next group.
        base: the case whose time the others' are divided by.
        wall: timed by the clock on the wall, also on a GPU.
        device: where the calls run.
    """

    part: str
    cases: tuple[Case, ...]
    make: Callable[[], Mapping[str, Sequence[Call]]]
    base: str | None = None
    wall: bool = False
    device: str = "cpu"
