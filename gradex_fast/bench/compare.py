"""Two result files case by case: how many times as long, and whether that is more than their spreads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gradex_fast.bench.results import FEW, Results, Spread


@dataclass(frozen=True)
class Compared:
    """One figure of both files.

    Attributes:
        unit: "s", "ratio", or of a ceiling. first, second: medians; a ceiling's best. ratio: second / first.
        change: "faster" or "slower" where the quartiles of the two do not overlap; "unknown" with too few rounds; None
            of ceilings, which have no spread.
    """

    part: str
    name: str
    unit: str
    first: float
    second: float
    change: Literal["faster", "slower", "same", "unknown"] | None

    @property
    def ratio(self) -> float:
        return self.second / self.first


@dataclass(frozen=True)
class Comparison:
    """Attributes: only_first, only_second: figures that the other file does not have."""

    cases: tuple[Compared, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    warnings: tuple[str, ...]

    def values(self) -> dict[str, Any]:
        """JSON values."""
        cases = [{**vars(each), "ratio": each.ratio} for each in self.cases]
        only = {"only_first": list(self.only_first), "only_second": list(self.only_second)}
        return {"cases": cases, **only, "warnings": list(self.warnings)}


def compare(first: Results, second: Results) -> Comparison:
    """What both have measured; warnings where more than the code may have changed between them."""
    one, two = _figures(first), _figures(second)
    cases = [Compared(*key, one[key].median, two[key].median, _change(one[key], two[key])) for key in one if key in two]
    ceilings, others = _ceilings(first), _ceilings(second)
    rates = [Compared(*key, rate, others[key], None) for key, rate in ceilings.items() if key in others]
    alone = [tuple(key[1] for key in own if key not in other) for own, other in ((one, two), (two, one))]
    return Comparison((*rates, *cases), *alone, tuple(_warnings(first, second)))


def _figures(found: Results) -> dict[tuple[str, str, str], Spread]:
    """By part, name and unit."""
    cases = {(case.part, case.name, "s"): case.seconds for case in found.cases}
    return cases | {(each.part, f"{each.name} / {each.to}", "ratio"): each.ratio for each in found.ratios}


def _ceilings(found: Results) -> dict[tuple[str, str, str], float]:
    return {("ceilings", f"{each.name} ({each.device})", each.unit): each.best for each in found.ceilings}


def _change(first: Spread, second: Spread) -> str:
    if min(first.rounds, second.rounds) < FEW:
        return "unknown"
    if second.lower > first.upper:
        return "slower"
    return "faster" if second.upper < first.lower else "same"


def _warnings(first: Results, second: Results) -> Iterator[str]:
    for what in ("machine", "versions"):
        yield from _differences(what, getattr(first, what), getattr(second, what))
    yield from _differences("settings", _asked(first), _asked(second))
    for name, found in (("first", first), ("second", second)):
        if not found.complete:
            yield f"the {name} was stopped before its end"
        for line in found.warnings:
            yield f"the {name}: {line}"


def _asked(found: Results) -> dict[str, Any]:
    """Settings that change what a call does."""
    return found.settings.model_dump(exclude={"repeats", "seconds", "parts", "device", "threads"}) | {
        "dtype": found.dtype
    }


def _differences(what: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys((*first, *second)):
        if first.get(name) != second.get(name):
            yield f"{what} differ: {name} was {first.get(name)}, then {second.get(name)}"
