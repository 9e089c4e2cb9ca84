"""A result file: JSON, its schema, and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from gradex_fast.bench.settings import BenchSettings
from gradex_fast.errors import GradexError

FORMAT = 1

FEW = 3
"""Rounds below which a spread says nothing."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Part):
    """Of one figure over the rounds: seconds of a call, or a ratio of two cases in the same round."""

    minimum: float
    lower: float
    median: float
    upper: float
    maximum: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        names = ("minimum", "lower", "median", "upper", "maximum")
        found = np.quantile(np.asarray(values, float), (0, 0.25, 0.5, 0.75, 1))
        return cls(**dict(zip(names, map(float, found), strict=True)), rounds=len(values))


class Ceiling(_Part):
    """What the machine did at most, before the cases and after them. Attributes: name: see `ceilings.measure`."""

    name: str
    device: str
    unit: str
    before: float
    after: float | None = None

    @property
    def best(self) -> float:
        return max(self.before, self.after or 0.0)


class CaseResult(_Part):
    """One case.

    Attributes:
        bytes, flops, entries: of a call, by counting. floor: seconds below which no call can be, by the ceilings.
        bound: the ceiling that says so. share: floor / median; None where nothing was counted.
        rates: what it gets done a second, by unit. layers: of the model that are such a call each.
    """

    part: str
    name: str
    seconds: Spread
    bytes: float
    flops: float
    entries: float
    floor: float | None
    bound: str | None
    share: float | None
    rates: dict[str, float]
    layers: int | None = None


class Ratio(_Part):
    """Of two cases of a group, round by round: `name`'s seconds over those of `to`."""

    part: str
    name: str
    to: str
    ratio: Spread


class LeftOut(_Part):
    part: str
    name: str
    why: str


class Results(_Part):
    """Attributes: complete: whether all that was asked for was measured or left out. load: the system's, at the start,
    in processes that run. dtype: of the base model and the kernels' inputs. parameters, trained: elements of the
    model's, None where no part needed it."""

    format: Literal[1] = FORMAT
    complete: bool
    date: str
    machine: dict[str, str | int | float | None]
    versions: dict[str, str]
    load: float | None
    settings: BenchSettings
    dtype: str
    parameters: int | None = None
    trained: int | None = None
    ceilings: tuple[Ceiling, ...] = ()
    cases: tuple[CaseResult, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Results:
        """Raises `GradexError` for a file that cannot be read or is none."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise GradexError(f"cannot read {path}: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the file"
            raise GradexError(f"{path} is no result of gradex-fast bench: {place}: {first['msg']}") from error
