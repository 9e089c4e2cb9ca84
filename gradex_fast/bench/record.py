"""What has been measured so far, and the results that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradex_fast.bench.cases import Case, Group
from gradex_fast.bench.ceilings import UNITS
from gradex_fast.bench.counts import Work
from gradex_fast.bench.results import FEW, CaseResult, Ceiling, LeftOut, Ratio, Results, Spread
from gradex_fast.bench.settings import BenchSettings

DRIFT = 1.1
"""Between a ceiling before and after the cases; more is worth a warning."""


class Record:
    """Args: about: the fields of `Results` that are known before anything is measured."""

    def __init__(self, about: Mapping[str, Any], settings: BenchSettings) -> None:
        self._about, self._settings = about, settings
        self._ceilings: dict[tuple[str, str], list[float]] = {}
        self._cases: list[tuple[str, Case, Spread]] = []
        self._ratios: list[Ratio] = []
        self._left_out: list[LeftOut] = []
        self._warnings: list[str] = []

    def warn(self, line: str) -> None:
        self._warnings.append(line)

    def leave_out(self, part: str, name: str, why: str) -> None:
        self._left_out.append(LeftOut(part=part, name=name, why=why))

    def ceilings(self, device: str, found: Mapping[str, float]) -> None:
        """Of a device: the first time before the cases, the second time after them."""
        for name, rate in found.items():
            self._ceilings.setdefault((device, name), []).append(rate)

    def floors(self, work: Work) -> dict[str, float]:
        """Seconds by ceiling, see `Work.floors`."""
        return work.floors(
            {name: max(rates) for (device, name), rates in self._ceilings.items() if device == work.device}
        )

    def add(self, group: Group, spent: Mapping[str, Sequence[float]]) -> None:
        """Seconds of every case, a figure a round."""
        for case in group.cases:
            if case.name in spent:
                self._cases.append((group.part, case, Spread.of(spent[case.name])))
        for name, each in spent.items():
            if group.base in spent and name != group.base:
                ratio = Spread.of(np.divide(each, spent[group.base]))
                self._ratios.append(Ratio(part=group.part, name=name, to=group.base, ratio=ratio))

    def results(self, complete: bool) -> Results:
        ceilings = tuple(
            Ceiling(
                name=name, device=device, unit=UNITS.get(name, "entries of P/s"), before=rates[0], after=_last(rates)
            )
            for (device, name), rates in self._ceilings.items()
        )
        return Results(
            **self._about,
            complete=complete,
            settings=self._settings,
            ceilings=ceilings,
            cases=tuple(self._result(*each) for each in self._cases),
            ratios=tuple(self._ratios),
            left_out=tuple(self._left_out),
            warnings=(*self._warnings, *self._doubts(ceilings)),
        )

    def _result(self, part: str, case: Case, seconds: Spread) -> CaseResult:
        floors = self.floors(case.work)
        bound = max(floors, key=floors.get) if floors else None
        floor = floors[bound] if bound else None
        return CaseResult(
            part=part,
            name=case.name,
            seconds=seconds,
            bytes=case.work.bytes,
            flops=case.work.flops,
            entries=case.work.entries,
            floor=floor,
            bound=bound,
            share=floor / seconds.median if floor else None,
            rates={unit: amount / seconds.median for unit, amount in case.amounts.items()},
            layers=case.layers,
        )

    def _doubts(self, ceilings: Sequence[Ceiling]) -> list[str]:
        """Why the figures may not be those of the machine alone."""
        load, cores = self._about["load"], self._about["machine"]["cores"]
        found = [] if not load or load < 0.5 else [f"the machine was busy: a load of {load:.1f} on {cores} cores"]
        for each in ceilings:
            if each.after and max(each.before, each.after) > DRIFT * min(each.before, each.after):
                change = each.after / each.before
                found.append(
                    f"the machine drifted: {each.name} ({each.device}) was {change:.2f} times as fast at the end"
                )
        if few := [case.name for _, case, seconds in self._cases if seconds.rounds < FEW]:
            more = "raise --seconds or --repeats"
            found.append(f"{len(few)} cases had fewer than {FEW} rounds ({few[0]}): {more} for a spread")
        return found


def _last(rates: Sequence[float]) -> float | None:
    return rates[-1] if len(rates) > 1 else None
