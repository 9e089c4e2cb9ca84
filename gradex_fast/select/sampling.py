"""Random subsets of the sources, for the ensemble and for anchors."""

from __future__ import annotations

import numpy as np

from gradex_fast.constraints import Constraints
from gradex_fast.select.estimator import Estimator, mask_of

SAMPLINGS = ("independent", "balanced", "antithetic")
FREE = Constraints()


def random_subsets(
    estimator: Estimator,
    count: int,
    fraction: float,
    seed: int | tuple[int, ...],
    sampling: str = "independent",
    constraints: Constraints = FREE,
) -> np.ndarray:
    """bool [count, n]: each holds round(fraction · free) free sources, one at least, all of `include`, every `always`.

    Free are the candidates that are neither included nor excluded. A budget does not bind these subsets.

    Args:
        sampling: "independent" draws each subset alone; "balanced" takes the sources that were drawn least, equals at
            random, so that at any time all were drawn equally often, ± 1; "antithetic" draws every second subset as the
            complement of the one before (of ⌊free/2⌋ or ⌈free/2⌉ sources), for a fraction of one half only. That
            cancels what is the same in a set and its complement, such as pairs that help one another; where f̂ is near a
            sum over the sources a complement says nothing new, and the scores need twice as many subsets.

    Raises:
        ValueError: the sampling is unknown, or does not go with the fraction.
    """
    free, draw = constraints.free(estimator.candidates), np.random.default_rng(seed)
    size = min(max(1, round(fraction * len(free))), len(free))
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
    times, subsets = np.zeros(len(free), int), []
    for _ in range(count):
        least = np.lexsort((draw.random(len(free)), times))[:size]
        times[least] += 1
        subsets.append(free[least])
    return subsets


def _antithetic(free: np.ndarray, count: int, size: int, draw: np.random.Generator) -> list[np.ndarray]:
    subsets: list[np.ndarray] = []
    while len(subsets) < count:
        members = draw.choice(free, size, replace=False)
        others = np.setdiff1d(free, members)
        subsets += [members, others if len(others) else members]  # of one source there is no other half
    return subsets[:count]
