"""Random subsets of the sources, for the ensemble and for anchors."""

from __future__ import annotations

import numpy as np

from gradex_fast.constraints import FREE, Constraints
from gradex_fast.select.estimator import Estimator, mask_of

SAMPLINGS = ("independent", "balanced", "antithetic")


def random_subsets(
    estimator: Estimator,
    count: int,
    fraction: float,
    seed: int | tuple[int, ...],
    sampling: str = "independent",
    constraints: Constraints = FREE,
) -> np.ndarray:
    """bool [count, n]: each holds round(fraction · free) free sources, all of `include`, every `always`.

    Free are the candidates that are neither included nor excluded; one at least is drawn and one left out (subsets that
    are all the same tell no source from another). A budget does not bind these subsets.

    Args:
        sampling: "independent" draws each subset alone. "balanced" then swaps sources between subsets until all are
            drawn equally often, ± 1, which takes off most of the noise that all scores share. "antithetic" draws every
            second subset as the complement of the one before (of ⌊free/2⌋ or ⌈free/2⌉ sources), for a fraction of one
            half only. That cancels what is the same in a set and its complement, such as pairs that help one another;
            where f̂ is near a sum over the sources, a complement says nothing new: twice the subsets are needed.

    Raises:
        ValueError: the sampling is unknown, or does not go with the fraction.
    """
    free, draw = constraints.free(estimator.candidates), np.random.default_rng(seed)
    size = min(max(1, round(fraction * len(free))), max(1, len(free) - 1), len(free))
    if sampling == "antithetic" and fraction != 0.5:
        raise ValueError(f"antithetic sampling is for a fraction of 0.5, not {fraction:g}")
    draws = {"independent": _independent, "balanced": _balanced, "antithetic": _antithetic}
    if sampling not in draws:
        raise ValueError(f"sampling must be one of {', '.join(draws)}, not {sampling!r}")
    drawn = draws[sampling](free, count, size, draw)
    return np.stack([mask_of(estimator, [*members, *constraints.include]) for members in drawn])


def _independent(free: np.ndarray, count: int, size: int, draw: np.random.Generator) -> list[np.ndarray]:
    return [draw.choice(free, size, replace=False) for _ in range(count)]


def _balanced(free: np.ndarray, count: int, size: int, draw: np.random.Generator) -> list[np.ndarray]:
    """Independent subsets in which sources that were drawn too often then give way to those drawn too seldom.

    Dealing the sources out in turn would be even too, but its subsets complete one another, which tells less.
    """
    masks = np.stack([np.isin(free, members) for members in _independent(free, count, size, draw)])
    times = masks.sum(0)
    while len(free) and np.ptp(times) > 1:
        most, least = (draw.choice(np.flatnonzero(times == end)) for end in (times.max(), times.min()))
        row = draw.choice(np.flatnonzero(masks[:, most] & ~masks[:, least]))
        masks[row, [most, least]] = False, True
        times[[most, least]] += -1, 1
    return [free[mask] for mask in masks]


def _antithetic(free: np.ndarray, count: int, size: int, draw: np.random.Generator) -> list[np.ndarray]:
    subsets: list[np.ndarray] = []
    while len(subsets) < count:
        members = draw.choice(free, size, replace=False)
        others = np.setdiff1d(free, members)
        subsets += [members, others if len(others) else members]  # of one source there is no other half
    return subsets[:count]
