"""Which process of a job this is."""

from __future__ import annotations

import os
from dataclasses import dataclass

from gradex_fast.errors import GradexError


@dataclass(frozen=True)
class Ranks:
    """Process `index` of `count` (0-based). `shard`: only every `count`-th shard of the sketches is its work.

    Raises:
        GradexError: there is no such process.
    """

    index: int = 0
    count: int = 1
    shard: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise GradexError(f"--shard {self.index}/{self.count}: the first number goes from 0 to {self.count - 1}")

    @classmethod
    def here(cls) -> Ranks:
        """As torchrun and accelerate set the environment; one process where nobody did."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @classmethod
    def of(cls, text: str) -> Ranks:
        """``i/n``, as given to ``--shard``."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise GradexError(f"--shard {text}: write i/n, such as 0/8 for the first of eight")
        return cls(int(index), int(count), shard=True)

    @property
    def leads(self) -> bool:
        """Whether it writes what only one may write."""
        return self.index == 0 or self.shard

    @property
    def training(self) -> int:
        """How many train one model together."""
        return 1 if self.shard else self.count

    def named(self, file: str) -> str:
        """Where this process keeps a file of which each has its own, below the run's directory."""
        return file if self.index == 0 else f"logs/{self.index}-{file}"


ALONE = Ranks()


def require_alone(command: str) -> None:
    """Raises GradexError where this is one of several processes."""
    if (count := Ranks.here().count) > 1:
        raise GradexError(
            f"{command} is for one process, and this is one of {count}; let several carry out the recipe's stages "
            f"(`run`), then call {command} by itself"
        )
