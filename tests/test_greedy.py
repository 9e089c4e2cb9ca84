"""Forward and backward selection over a real estimator: every step of the path is exhaustive search's, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from greedy import TIE, Exhaustive, assert_best, make_estimator

from gradex_fast import (
    Constraints,
    SubsetEstimator,
    backward_selection,
    floating_selection,
    forward_selection,
    kernels,
    native,
)
from gradex_fast.moves import EveryMove, ScreenedMoves
from gradex_fast.select.estimator import in_tie_order

SEVENTEEN = [17, 1, 0, 40, 5, 1, 25, 60, 0, 9, 33, 12, 2, 48, 7, 21, 1]
ADDING = pytest.mark.parametrize("adding", [True, False], ids=["forward", "backward"])


def select(made, adding, keep=None, **options):
    return (forward_selection if adding else backward_selection)(made, keep=keep, **options)


def assert_greedy(made, found, adding, keep=None) -> None:
    """Each step is the best of all moves, with its exact f̂; the path ends at `keep`, or where nothing improves."""
    assert isinstance(made.moves(), ScreenedMoves)
    exact, mask = Exhaustive(made), np.zeros(made.groups, bool)
    mask[[*made.always, *(() if adding else made.candidates)]] = True
    for step in found.path:
        moves, now = made.candidates[mask[made.candidates] != adding], exact.loss(mask)
        losses, chosen = exact.after(mask, moves), moves.tolist().index(step["source"])
        assert_best(losses, chosen, now)
        assert step["loss"] == pytest.approx(losses[chosen], rel=2e-5)  # of float32 rows, as in test_losses
        assert keep is not None or not mask.any() or losses[chosen] < now * (1 + TIE)
        mask[step["source"]] ^= True
    assert found.chosen == tuple(i for i in made.candidates if mask[i])
    moves = made.candidates[mask[made.candidates] != adding]
    fewest = 0 if made.always else 1
    if keep is not None:
        assert len(found.chosen) == min(max(keep, 0 if adding else fewest), len(made.candidates))
    elif len(moves) and (adding or len(moves) > fewest):
        assert exact.after(mask, moves).min() > exact.loss(mask) * (1 - TIE)


@ADDING
@pytest.mark.parametrize("always", [(), (1,)], ids=["", "always"])
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 30.0])
@pytest.mark.parametrize("dim", [1, 5, 17, 40])
@pytest.mark.parametrize("sizes", [[9, 4], [30, 1], [0, 12], [17, 1, 0, 40, 5]], ids=str)
def test_few_sources(sizes, dim, ridge, always, adding):
    made = make_estimator(dim, sizes, dim, ridge=ridge, always=always)
    for keep in (None, 0, 1, 2, len(sizes)):
        assert_greedy(made, select(made, adding, keep), adding, keep)


@ADDING
def test_one_source(adding):
    made = make_estimator(0, [9], 5)
    assert select(made, adding).chosen == (0,)
    assert len(select(made, adding, 1).path) == adding


@ADDING
@pytest.mark.parametrize(("seed", "dim", "ridge"), [(1, 1, 0.1), (2, 5, 1e-4), (3, 17, 0.01), (4, 17, 10.0)])
@pytest.mark.parametrize("always", [(), (3, 8)], ids=["", "always"])
def test_whole_paths_and_peaks(seed, dim, ridge, always, adding):
    made = make_estimator(seed, SEVENTEEN, dim, ridge=ridge, always=always)
    keep = len(made.candidates) if adding else 0
    assert_greedy(made, select(made, adding, keep), adding, keep)
    assert_greedy(made, select(made, adding), adding)


@ADDING
def test_thirty_sources(adding):
    made = make_estimator(5, [20 + i for i in range(30)], 17, ridge=0.3)
    assert_greedy(made, select(made, adding, 15), adding, 15)


@pytest.mark.parametrize("seed", range(3))
def test_sources_of_unlike_lengths(seed):
    """A source of a hundred times the others' length is a Hessian of its own: without it nothing is as before."""
    scales = np.exp(2 * np.random.default_rng(seed).standard_normal(40))
    made = make_estimator(seed, np.arange(40) % 13 + 3, 5, scales=scales, spread=0.3, ridge=0.01)
    assert_greedy(made, select(made, False, 34), False, 34)


@ADDING
@pytest.mark.parametrize("seed", range(3))
def test_rows_that_are_nearly_separable(seed, adding):
    """x moves so far that no Newton step is a guide, and the validation loss is no longer linear."""
    made = make_estimator(seed, [60] * 8, 40, ridge=2e-5)
    keep = 8 if adding else 1
    assert_greedy(made, select(made, adding, keep), adding, keep)


@ADDING
@pytest.mark.parametrize("instruction_set", native.instruction_sets())
def test_the_first_of_equals(instruction_set, adding):
    """Sources 1, 4 and 5 are the same rows, few or many: the seed orders them."""
    for rows in (7, 3000):  # of 3000 rows the solves are not exact to begin with
        plain = make_estimator(1, [rows] * 6, 20)
        for part in (plain.train.g, plain.train.margin):
            part[4 * rows : 5 * rows] = part[5 * rows :] = part[rows : 2 * rows]
        with native.using_instruction_set(instruction_set):
            made = SubsetEstimator(plain.train, np.repeat(np.arange(6), rows), plain.valid)
            for seed in range(3):
                path = [step["source"] for step in select(made, adding, 6 if adding else 1, seed=seed).path]
                equals = [source for source in path if source in (1, 4, 5)]
                order = in_tie_order(made.candidates, seed)
                assert equals == [source for source in order if source in (1, 4, 5)][: len(equals)]
                assert len(equals) >= 2


def test_a_gain_below_what_many_rows_are_solved_to():
    """A first step of 1e-2 and then a source of one row: whether it helps is told by exact solves."""
    for seed in range(4):
        made = make_estimator(seed, [9000, 9000, 1], 30, always=[0], ridge=0.1, lean=1.0)
        assert_greedy(made, select(made, True), True)
        assert_greedy(made, select(made, True, 2), True, 2)


def test_bad_rows_go_the_exhaustive_way(caplog):
    """A margin beyond all bounds spoils the subsets that hold it: x = 0 there, and every other is as it was."""
    plain = make_estimator(2, [9, 12, 7, 20], 4)
    plain.train.margin[10] = np.inf  # in source 1
    made = SubsetEstimator(plain.train, np.repeat(np.arange(4), [9, 12, 7, 20]), plain.valid)
    assert isinstance(made.moves(), EveryMove)
    exact, mask = Exhaustive(made), np.zeros(4, bool)
    for step in forward_selection(made, keep=4).path:
        moves = np.flatnonzero(~mask)
        losses = exact.after(mask, moves)
        assert losses[moves.tolist().index(step["source"])] <= losses.min() * (1 + 1e-6)  # of float32 losses
        mask[step["source"]] = True
    assert mask.all()
    assert "ended early (not_finite)" in caplog.text


def test_wide_sketches_go_the_exhaustive_way():
    wide = kernels.NeighbourSearch.LARGEST_DIM + 1
    assert isinstance(make_estimator(0, [3, 4], wide).moves(), EveryMove)
    assert isinstance(make_estimator(0, [3, 4], wide - 1).moves(), ScreenedMoves)


@pytest.mark.parametrize(("seed", "dim", "ridge"), [(1, 1, 0.1), (2, 5, 1e-4), (3, 17, 0.01), (4, 17, 10.0)])
@pytest.mark.parametrize("always", [(), (3, 8)], ids=["", "always"])
def test_floating_over_real_sketches(seed, dim, ridge, always):
    """Every move is the best of its kind; a removal makes the best set of its size; it ends with everything."""
    made = make_estimator(seed, SEVENTEEN, dim, ridge=ridge, always=always)
    found, exact = floating_selection(made, whole=True, seed=seed), Exhaustive(made)
    mask = np.isin(np.arange(made.groups), made.always)
    least, added = {}, None
    for step in found.path:
        moves = made.candidates[mask[made.candidates] != step["added"]]
        moves = moves if step["added"] else moves[moves != added]
        losses, chosen = exact.after(mask, moves), moves.tolist().index(step["source"])
        assert_best(losses, chosen, exact.loss(mask))
        assert step["loss"] == pytest.approx(losses[chosen], rel=2e-5)
        mask[step["source"]] ^= True
        size = mask.sum()
        assert step["added"] or losses[chosen] < least.get(size, np.inf) * (1 + 1e-6)
        least[size], added = min(losses[chosen], least.get(size, np.inf)), step["source"] if step["added"] else added
    assert mask.all()
    best = np.isin(np.arange(made.groups), [*found.chosen, *made.always])
    assert exact.loss(best) == pytest.approx(min(least.values()), rel=2e-5)


@ADDING
def test_a_budget_over_real_sketches(adding):
    made = make_estimator(6, [12] * 8, 17, ridge=0.3)
    costs = np.array([4, 1, 3, 2, 5, 1, 2, 6])
    found, exact, mask = select(made, adding, constraints=Constraints(costs=costs, budget=9)), Exhaustive(made), None
    mask = np.full(8, not adding)
    for step in found.path:
        moves = np.flatnonzero(mask != adding)
        moves = moves[costs[mask].sum() + costs[moves] <= 9] if adding else moves
        losses = exact.after(mask, moves)
        assert_best(losses, moves.tolist().index(step["source"]), exact.loss(mask))
        mask[step["source"]] ^= True
    assert found.chosen == tuple(np.flatnonzero(mask)) and costs[mask].sum() <= 9
    assert found.details["cost"]["spent"] == costs[mask].sum()
