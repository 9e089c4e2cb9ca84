"""Searches that add or remove one source at a time: forward, backward, floating."""

from __future__ import annotations

from collections.abc import Callable

from gradex_fast.constraints import FREE, Constraints
from gradex_fast.select.estimator import Estimator
from gradex_fast.select.walk import Walk
from gradex_fast.types import Selection

Progress = Callable[[int], object] | None


def forward_selection(
    estimator: Estimator,
    *,
    keep: int | None = None,
    whole: bool = False,
    constraints: Constraints = FREE,
    seed: int = 0,
    progress: Progress = None,
) -> Selection:
    """Algorithm 2: at every step try all candidates and add the best; stop when nothing improves f̂.

    Sources that do not fit into the budget any more are passed over.

    Args:
        keep: go on to exactly so many sources, those of `constraints.include` among them, improving or not.
        whole: go on until nothing can be added. The choice is the set of lowest f̂ on the path (of `keep` sources, where
            that is given); ``details["steps"]`` says after how many steps it was reached.
        seed: of equals, the first of an order drawn from it is taken. Equal is what agrees to what float64 solves are
            exact to (2e-11 of f̂), or to the last bit where the estimator's moves are not solved so.
        progress: is called with the number of steps that were made.

    Raises:
        ValueError: no choice can be within the constraints.
    """
    keep, walk = _started(estimator, constraints.include, keep, constraints, seed, progress)
    _grow(walk, keep, whole)
    return walk.selection(walk.lowest(keep) if whole or keep is not None else len(walk.path))


def backward_selection(
    estimator: Estimator,
    *,
    keep: int | None = None,
    whole: bool = False,
    constraints: Constraints = FREE,
    seed: int = 0,
    progress: Progress = None,
) -> Selection:
    """From all sources, drop at every step the one without which f̂ is lowest; stop when nothing improves.

    While the sources cost more than the budget it goes on, improving or not.

    Args:
        keep, whole, seed, progress: as in `forward_selection`; whole goes on down to the fewest sources.

    Raises:
        ValueError: no choice can be within the constraints.
    """
    start = constraints.allowed(estimator.candidates)
    keep, walk = _started(estimator, start, keep, constraints, seed, progress)
    keep = None if keep is None else max(keep, walk.fewest)
    until = walk.fewest if whole or keep is None else keep
    while walk.size() > until:
        fewest = keep if keep is not None and walk.size() > keep else walk.fewest
        moves = constraints.removable(walk.mask, walk.candidates, fewest)
        if not len(moves):
            break
        step = walk.best(moves)
        if keep is None and not whole and constraints.fits(walk.members()) and not step.gain > 0:
            break
        walk.take(moves[step.move], step.loss)
    return walk.selection(walk.lowest(keep) if whole or keep is not None else len(walk.path))


def floating_selection(
    estimator: Estimator,
    *,
    keep: int | None = None,
    whole: bool = False,
    constraints: Constraints = FREE,
    seed: int = 0,
    progress: Progress = None,
) -> Selection:
    """Forward selection that takes back: sequential floating forward search (Pudil, Novovičová, Kittler 1994).

    After each addition the source without which f̂ is lowest, other than the one just added, is removed as long as
    that makes the best set of its size so far. A set that was visited before is never removed to, so that it ends. The
    choice is the set of lowest f̂ on the path, or of those of `keep` sources.

    Args:
        keep, whole, seed, progress: as in `forward_selection`.

    Raises:
        ValueError: no choice can be within the constraints.
    """
    keep, walk = _started(estimator, constraints.include, keep, constraints, seed, progress)
    _grow(walk, keep, whole, then=_take_back)
    return walk.selection(walk.lowest(keep))


def _grow(walk: Walk, keep: int | None, whole: bool, then: Callable[[Walk], object] | None = None) -> None:
    """Additions, each the best of all; after each of them `then`."""
    while keep is None or whole or walk.size() < keep:
        moves = walk.constraints.addable(walk.mask, walk.candidates, keep)
        if not len(moves):
            break
        step = walk.best(moves)
        if keep is None and not whole and not step.gain > 0:
            break
        walk.take(moves[step.move], step.loss)
        if then:
            then(walk)


def _take_back(walk: Walk) -> None:
    """Removals, as long as each makes the best set of its size."""
    last = walk.path[-1]["source"]
    while walk.size() > max(1, walk.fewest):
        moves = walk.constraints.free(walk.candidates)
        moves = moves[walk.mask[moves] & (moves != last)]
        if not len(moves):
            break
        step = walk.best(moves)
        if walk.visited(moves[step.move]) or not step.loss < walk.least[walk.size() - 1]:
            break
        walk.take(moves[step.move], step.loss)


def _started(estimator, members, keep, constraints, seed, progress) -> tuple[int | None, Walk]:
    """`keep`, or as many as there are; the walk at its first set."""
    candidates = estimator.candidates
    constraints.check(candidates, keep)
    keep = None if keep is None else min(keep, len(constraints.allowed(candidates)))
    return keep, Walk(estimator, members, constraints, seed, progress)
