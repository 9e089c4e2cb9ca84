"""Greedy selection by neighbour search against exhaustive search in float64, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from greedy import TIE, Exhaustive, make_estimator

from gradex_fast import backward_selection, forward_selection, kernels, native
from gradex_fast.moves import EveryMove, ScreenedMoves

UNEVEN = [40, 1, 0, 90, 17, 5, 64, 130, 33, 2, 71, 12]


def assert_greedy(made, path, adding):
    """Every step is the best of all, or within a tie of it; its f̂ is what exact solves give."""
    exact = Exhaustive(made)
    mask = np.zeros(made.groups, bool)
    mask[[*made.always, *(() if adding else made.candidates)]] = True
    for step in path:
        moves = made.candidates[mask[made.candidates] != adding]
        losses, now = exact.after(mask, moves), exact.loss(mask)
        mask[step["source"]] ^= True
        found = losses[list(moves).index(step["source"])]
        assert found <= losses.min() * (1 + TIE)
        assert step["loss"] == pytest.approx(found, abs=1e-3 * abs(found - now) + 1e-6 * found)
    return exact, mask


@pytest.mark.parametrize("always", [(), (3,)])
@pytest.mark.parametrize("ridge", [0.03, 1.0, 30.0])
@pytest.mark.parametrize(("sizes", "dim"), [([9], 5), ([9, 30], 17), (UNEVEN, 1), (UNEVEN, 17), ([25] * 16, 24)])
@pytest.mark.parametrize("adding", [True, False], ids=["forward", "backward"])
def test_whole_paths_are_greedy(sizes, dim, ridge, always, adding):
    always = [group for group in always if group < len(sizes)]
    made = make_estimator(1, sizes, dim, ridge=ridge, always=always)
    count = len(made.candidates)
    if adding:
        path = forward_selection(made, keep=count).path
        assert sorted(step["source"] for step in path) == made.candidates.tolist()
    else:
        path = backward_selection(made, keep=1).path
        assert len(path) == max(count - 1, 0)
    assert_greedy(made, path, adding)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("adding", [True, False], ids=["forward", "backward"])
def test_stops_at_the_peak(seed, adding):
    made = make_estimator(seed, [20, 35, 15, 50, 28, 41, 33, 60], 17, ridge=0.3)
    exact, mask = assert_greedy(made, (forward_selection if adding else backward_selection)(made).path, adding)
    moves = np.flatnonzero(mask != adding)
    assert exact.after(mask, moves).min() >= exact.loss(mask) * (1 - TIE)


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
def test_large_sources_on_every_instruction_set(instruction_set):
    """Enough rows that nothing is exact for being cheap: 24 sources of 200 to 900."""
    draw = np.random.default_rng(5)
    sizes = draw.integers(200, 900, 24)
    with native.using_instruction_set(instruction_set):
        made = make_estimator(5, sizes, 30, ridge=0.3, lean=0.2)
        path = forward_selection(made, keep=5).path
    assert_greedy(made, path, adding=True)


def test_the_first_of_equals_is_chosen():
    made = make_estimator(2, [30, 30, 30, 30], 7)
    made.train.g[30:60], made.train.margin[30:60] = made.train.g[:30], made.train.margin[:30]
    made.train.g[90:], made.train.margin[90:] = made.train.g[:30], made.train.margin[:30]
    path = [step["source"] for step in forward_selection(made, keep=4).path]
    assert [source for source in path if source != 2] == [0, 1, 3]


def search_and_exact(sizes=UNEVEN, dim=17, threads=None):
    made = make_estimator(3, sizes, dim)
    solver = kernels.SubsetSolver(made.train.g, made.train.margin, made.group_ptr)
    validation = made.valid.g, made.valid.margin
    return kernels.NeighbourSearch(solver, *validation, l2=made.l2, threads=threads), Exhaustive(made)


@pytest.mark.parametrize("members", [[0, 3, 4, 7], [], [1], list(range(12))], ids=str)
def test_every_neighbour_is_solved(members):
    search, exact = search_and_exact()
    mask, moves = np.isin(np.arange(12), members), np.arange(12)
    found = search.solve(mask, moves)
    for x, move in zip(found, moves, strict=True):
        best = exact.x(mask ^ (moves == move))
        assert np.linalg.norm(x - best) <= 2e-3 * np.linalg.norm(best)
    best = search.best(mask, moves)
    losses = exact.after(mask, moves)
    assert losses[best.move] <= losses.min() * (1 + TIE)
    assert best.now == pytest.approx(exact.loss(mask), rel=1e-6)
    assert best.solved <= len(moves)


def test_a_move_that_leaves_nothing_is_at_zero():
    search, exact = search_and_exact([30], 5)
    best = search.best([0], [0])
    assert (best.x == 0).all()
    assert best.loss == pytest.approx(exact.loss_at(np.zeros(5)), rel=1e-12)


def test_same_bits_for_any_threads():
    def path(threads):
        search, mask, steps = search_and_exact([25] * 30, 40, threads)[0], np.zeros(30, bool), []
        for _ in range(10):
            moves = np.flatnonzero(~mask)
            found = search.best(mask, moves)
            mask[moves[found.move]] = True
            steps.append((moves[found.move], found.loss, *found.x))
        return np.array(steps)

    np.testing.assert_array_equal(path(1), path(2))
    np.testing.assert_array_equal(path(1), path(5))


def test_bad_arguments_are_named():
    made = make_estimator(0, [5, 6], 4)
    solver = kernels.SubsetSolver(made.train.g, made.train.margin, made.group_ptr)
    with pytest.raises(ValueError, match=r"\[v, 4\].*\(20, 3\)"):
        kernels.NeighbourSearch(solver, made.valid.g[:, :3], made.valid.margin, l2=1.0)
    with pytest.raises(ValueError, match=r"\(0, 4\)"):
        kernels.NeighbourSearch(solver, made.valid.g[:0], made.valid.margin[:0], l2=1.0)
    search = kernels.NeighbourSearch(solver, made.valid.g, made.valid.margin, l2=1.0)
    with pytest.raises(ValueError, match="groups 0 to 2, but there are 2"):
        search.best([0], [0, 2])
    with pytest.raises(ValueError, match="no moves"):
        search.best([0], [])


def test_rows_that_are_not_finite_are_estimated_one_by_one():
    made = make_estimator(0, [9, 12, 7], 4)
    assert isinstance(made.moves(), ScreenedMoves)
    made.train.g[10, 0] = np.nan  # in source 1
    assert isinstance(made.moves(), EveryMove)
