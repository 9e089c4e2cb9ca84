"""Greedy searches by their definitions, over sets and exhaustive look-ahead: obviously right, and slow."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from estimators import Known


class Rules:
    """Which sets are allowed: `include` within, `exclude` without, costs within the budget."""

    def __init__(self, made: Known, include=(), exclude=(), costs=None, budget=None) -> None:
        self.made, self.include, self.budget = made, set(include), budget
        self.allowed = set(made.candidates.tolist()) - set(exclude)
        self.costs = np.zeros(made.groups) if costs is None else np.asarray(costs, float)

    def fits(self, members: set[int]) -> bool:
        return self.budget is None or sum(self.costs[i] for i in members) <= self.budget

    def can_grow(self, members: set[int], size: int) -> bool:
        """Whether some allowed set of `size` sources (or of these) holds the members and fits."""
        others = itertools.combinations(self.allowed - members, max(0, size - len(members)))
        return any(self.fits(members | set(more)) for more in others)

    def can_shrink(self, members: set[int], size: int) -> bool:
        """Whether some set of `size` of the members holds `include` and fits."""
        others = itertools.combinations(members - self.include, size - len(self.include))
        return any(self.fits(self.include | set(more)) for more in others)

    def loss(self, members: set[int]) -> float:
        return self.made.loss(members) if members or self.made.always else np.inf


def forward_path(rules: Rules, keep: int | None, whole: bool) -> list[set[int]]:
    sets = [set(rules.include)]
    while keep is None or whole or len(sets[-1]) < keep:
        now = sets[-1]
        options = [now | {i} for i in sorted(rules.allowed - now)]
        size = max(keep or 0, len(now) + 1)
        options = [s for s in options if rules.can_grow(s, size)]
        if not options or (keep is None and not whole and min(map(rules.loss, options)) >= rules.loss(now)):
            break
        sets.append(min(options, key=rules.loss))
    return sets


def backward_path(rules: Rules, keep: int | None, whole: bool) -> list[set[int]]:
    fewest = max(len(rules.include), 0 if rules.made.always else 1)
    sets = [set(rules.allowed)]
    while len(sets[-1]) > (fewest if whole or keep is None else keep):
        now = sets[-1]
        size = keep if keep is not None and len(now) > keep else fewest
        options = [now - {i} for i in sorted(now - rules.include)]
        options = [s for s in options if rules.can_shrink(s, size)]
        best = min(map(rules.loss, options))
        if keep is None and not whole and rules.fits(now) and best >= rules.loss(now):
            break
        sets.append(min(options, key=rules.loss))
    return sets


def floating_path(rules: Rules, keep: int | None, whole: bool) -> list[set[int]]:
    """Pudil, Novovičová and Kittler (1994), sections 2.2 and 2.3: inclusion, conditional exclusion, and on."""
    sets = [set(rules.include)]
    while keep is None or whole or len(sets[-1]) < keep:
        now = sets[-1]
        options = [now | {i} for i in sorted(rules.allowed - now)]
        options = [s for s in options if rules.can_grow(s, max(keep or 0, len(now) + 1))]
        if not options or (keep is None and not whole and min(map(rules.loss, options)) >= rules.loss(now)):
            break
        sets.append(min(options, key=rules.loss))
        (last,) = sets[-1] - now
        while smaller := [sets[-1] - {i} for i in sorted(sets[-1] - rules.include - {last})]:
            best = min(smaller, key=rules.loss)
            known = [rules.loss(s) for s in sets if len(s) == len(best)]
            if rules.loss(best) >= min(known, default=np.inf) - 1e-12:
                break
            sets.append(best)
    return sets


PATHS = {"forward": forward_path, "backward": backward_path, "floating": floating_path}


def chosen_of(rules: Rules, sets: Sequence[set[int]], keep: int | None, last: bool) -> set[int]:
    """The last set, or the best of those that fit (of `keep` sources)."""
    if last and keep is None:
        return sets[-1]
    return min((s for s in sets if rules.fits(s) and (keep is None or len(s) == keep)), key=rules.loss)
