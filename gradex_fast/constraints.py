"""What a choice of sources must hold, must not hold and may cost."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Constraints:
    """Limits of a selection; a default one allows everything.

    Attributes:
        include: sources that are always chosen. exclude: sources that never are.
        costs: [n], what each source costs (its rows, its tokens). budget: what the chosen ones may cost together;
            `always` groups cost nothing. unit: of costs, for messages.
        names: [n], for messages.
    """

    include: Sequence[int] = ()
    exclude: Sequence[int] = ()
    costs: Sequence[float] | np.ndarray | None = None
    budget: float | None = None
    unit: str = "units"
    names: Sequence[str] | None = None

    @classmethod
    def named(
        cls, names: Sequence[str], include: Sequence[str] = (), exclude: Sequence[str] = (), **limits: Any
    ) -> Constraints:
        """The same with sources by name. Raises ValueError for a name that there is not, with the nearest one."""
        found = {field: _found(names, wanted, field) for field, wanted in (("include", include), ("exclude", exclude))}
        return cls(**found, names=names, **limits)

    def check(self, candidates: np.ndarray, keep: int | None = None) -> None:
        """Raises ValueError, naming the option, if no choice among `candidates` (of `keep` sources) can be right."""
        self._check_members(candidates, keep)
        if self.budget is None:
            return
        costs = np.asarray(self.costs if self.costs is not None else (), float)
        if costs.ndim != 1 or len(costs) <= candidates.max(initial=-1) or not (np.isfinite(costs) & (costs >= 0)).all():
            raise ValueError("costs must be a number >= 0 for every source, where there is a budget")
        have = f"budget of {self.budget:,g} {self.unit}"
        if self.spent(self.include) > self.budget:
            parts = ", ".join(f"{self._name(i)} {costs[i]:,g}" for i in self.include)
            raise ValueError(f"{have} is less than what must be included: {parts}")
        fewest = min(max(keep or 1, len(self.include)), len(self.allowed(candidates)))
        free = np.sort(costs[self.free(candidates)])[: fewest - len(self.include)]
        if self.spent(self.include) + free.sum() > self.budget:
            least = self.spent(self.include) + free.sum()
            raise ValueError(f"{have} holds no {fewest} source(s): the smallest take {least:,g}")

    def allowed(self, candidates: np.ndarray) -> np.ndarray:
        """The candidates that are not excluded, in their order."""
        return candidates[~np.isin(candidates, self.exclude)]

    def free(self, candidates: np.ndarray) -> np.ndarray:
        """Those of `allowed` that need not be chosen."""
        return candidates[~np.isin(candidates, [*self.exclude, *self.include])]

    def spent(self, members: Sequence[int] | np.ndarray) -> float:
        """What `members` cost together; 0 where nothing has a cost."""
        return 0 if self.costs is None else np.asarray(self.costs)[list(members)].sum().item()

    def fits(self, members: Sequence[int] | np.ndarray) -> bool:
        """Whether `members` are within the budget."""
        return self.budget is None or self.spent(members) <= self.budget

    def addable(self, mask: np.ndarray, candidates: np.ndarray, keep: int | None = None) -> np.ndarray:
        """Candidates outside mask [n] that fit, and with which `keep` sources still can."""
        free = self.allowed(candidates)
        free, size = free[~mask[free]], int(mask[candidates].sum())
        if self.budget is None:
            return free
        costs = np.asarray(self.costs, float)[free]
        later = _cheapest_others(costs, max(0, (keep or 0) - size - 1))
        return free[costs + later <= self.budget - self.spent(candidates[mask[candidates]])]

    def removable(self, mask: np.ndarray, candidates: np.ndarray, fewest: int) -> np.ndarray:
        """Candidates in mask [n] without which `fewest` of the others are within the budget."""
        free = self.free(candidates)
        free = free[mask[free]]
        if self.budget is None:
            return free
        costs = np.asarray(self.costs, float)[free]
        later = _cheapest_others(costs, max(0, fewest - len(self.include)))
        return free[later <= self.budget - self.spent(self.include)]

    def account(self, chosen: Sequence[int]) -> Mapping[str, Any]:
        """What a choice cost, for the record: JSON values."""
        if self.budget is None:
            return {}
        return {"cost": {"unit": self.unit, "spent": self.spent(chosen), "budget": self.budget}}

    def _check_members(self, candidates: np.ndarray, keep: int | None) -> None:
        for field, members in (("include", self.include), ("exclude", self.exclude)):
            if len(strangers := np.setdiff1d(np.asarray(members, np.int64), candidates)):
                raise ValueError(f"{field}: {strangers[0]} is no source that can be chosen")
        if both := set(self.include) & set(self.exclude):
            raise ValueError(f"{self._name(min(both))} stands in include and in exclude")
        left = len(self.allowed(candidates))
        if self.exclude and not left:
            raise ValueError("exclude leaves no source to choose from")
        if keep is not None and keep < len(self.include):
            raise ValueError(f"keep is {keep}, fewer than the {len(self.include)} sources of include")
        if keep is not None and self.exclude and keep > left:
            raise ValueError(f"keep is {keep}, more than the {left} source(s) that exclude leaves")

    def _name(self, source: int) -> str:
        return str(source) if self.names is None else str(self.names[source])


FREE = Constraints()
"""No limits."""


def _found(names: Sequence[str], wanted: Sequence[str], field: str) -> tuple[int, ...]:
    for name in wanted:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise ValueError(f"{field}: no source is named {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return tuple(sorted({list(names).index(name) for name in wanted}))


def _cheapest_others(costs: np.ndarray, count: int) -> np.ndarray:
    """[k]: for each of k costs, the sum of the `count` lowest of the others; infinite where there are fewer."""
    if count > len(costs) - 1:
        return np.full(len(costs), np.inf)
    place = np.argsort(np.argsort(costs, kind="stable"), kind="stable")
    total = np.concatenate([[0.0], np.cumsum(np.sort(costs))])
    return np.where(place < count, total[min(count + 1, len(costs))] - costs, total[count])
