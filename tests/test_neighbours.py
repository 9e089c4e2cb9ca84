"""The neighbour search: minima and losses of all moves from a subset, and the best of them, against the reference."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from greedy import Exhaustive, assert_best, make_estimator

from gradex_fast import kernels, native
from gradex_fast.reference import solve as reference

UNEVEN = [40, 1, 0, 90, 17, 5, 64, 130, 33, 2, 71, 12]
SUBSETS = [[], [1], [2], [0, 3, 4, 7], [1, 2, 5], list(range(12))]


@pytest.fixture(params=native.instruction_sets())
def instruction_set(request):
    with native.using_instruction_set(request.param):
        yield request.param


def make_search(made, *, l2=None, threads=None) -> kernels.NeighbourSearch:
    solver = kernels.SubsetSolver(
        made.train.g, made.train.margin, made.group_ptr, divisor=made.divisor, threads=threads
    )
    l2 = made.l2 if l2 is None else l2
    return kernels.NeighbourSearch(solver, made.valid.g, made.valid.margin, l2=l2, threads=threads)


def mask_of(members, count) -> np.ndarray:
    return np.isin(np.arange(count), members)


@pytest.mark.parametrize("members", SUBSETS, ids=str)
@pytest.mark.parametrize(("dim", "ridge"), [(1, 0.1), (5, 1e-3), (17, 0.1), (40, 10.0)])
def test_solve_finds_every_minimum(instruction_set, dim, ridge, members):
    """F(x) − F* ≤ 1e-6 F*, the default of `SubsetSolver.solve`; where nothing is left x = 0."""
    made = make_estimator(dim, UNEVEN, dim, ridge=ridge)
    exact, mask, moves = Exhaustive(made), mask_of(members, 12), np.arange(12)
    found = make_search(made).solve(mask, moves)
    for move, x in zip(moves, found, strict=True):
        after = mask ^ (moves == move)
        problem = exact.problem(after)
        if not len(problem[1]):
            assert (x == 0).all()
            continue
        least = reference.objective(exact.x(after), *problem)
        assert reference.objective(x, *problem) - least <= 1e-6 * least


@pytest.mark.parametrize("members", SUBSETS, ids=str)
@pytest.mark.parametrize(("dim", "ridge"), [(1, 0.1), (5, 1e-3), (17, 0.1), (40, 10.0)])
def test_best_is_exact_where_rows_are_few(instruction_set, dim, ridge, members):
    """The loss to 1e-6 of its change, but for 1e-11 of itself, which float64 leaves (`kExact`)."""
    made = make_estimator(dim, UNEVEN, dim, ridge=ridge)
    exact, mask, moves = Exhaustive(made), mask_of(members, 12), np.arange(12)[::-1]
    best = make_search(made).best(mask, moves)
    losses, now = exact.after(mask, moves), exact.loss(mask)
    assert_best(losses, best.move, now)
    assert best.loss == pytest.approx(losses[best.move], rel=0, abs=1e-6 * abs(losses[best.move] - now) + 1e-11 * now)
    assert best.now == pytest.approx(now, rel=1e-9)
    assert best.loss == pytest.approx(exact.loss_at(best.x), rel=1e-11)
    assert 1 <= best.solved <= 12


def test_a_walk_is_as_good_as_fresh_starts(instruction_set):
    """A search keeps what it knew of the subset before, and must not be misled by it; any moves, there and back."""
    made = make_estimator(7, UNEVEN, 17, ridge=0.03)
    search, exact, draw = make_search(made), Exhaustive(made), np.random.default_rng(0)
    mask = np.ones(12, bool)
    for _ in range(25):
        moves = draw.permutation(12)[: draw.integers(1, 12)]
        best = search.best(mask, moves)
        assert_best(exact.after(mask, moves), best.move, exact.loss(mask))
        assert best.loss == pytest.approx(exact.loss_at(best.x), rel=1e-11)
        mask[moves[best.move if draw.random() < 0.7 else 0]] ^= True


def test_many_sources_are_screened(instruction_set):
    """150 sources of unlike lengths in 40 dimensions; few are solved, and the best is among them.

    Against `kernels.solve` at tol = 0, which tests/test_solve.py holds against the reference: that is faster.
    """
    draw = np.random.default_rng(3)
    made = make_estimator(3, draw.integers(5, 60, 150), 40, scales=draw.uniform(0.7, 1.5, 150), ridge=1e-3)
    search, mask, solved = make_search(made), np.ones(150, bool), []
    exact = Exhaustive(made)
    for _ in range(8):
        moves = np.flatnonzero(mask)
        best = search.best(mask, moves)
        trials = mask ^ np.eye(150, dtype=bool)[moves]
        x = made._solver.solve(trials, l2=made.l2, tol=0).x
        assert_best(np.array([exact.loss_at(one) for one in x]), best.move, best.now)
        mask[moves[best.move]] = False
        solved.append(best.solved)
    assert max(solved) < 50


def test_subsets_are_masks_or_groups():
    search = make_search(make_estimator(0, [5, 6, 7], 4))
    from_mask, from_list = search.best(np.array([True, False, True]), [0, 1]), search.best([0, 2], [0, 1])
    assert from_mask.move == from_list.move
    np.testing.assert_array_equal(from_mask.x, from_list.x)


def test_same_bits_for_any_threads(instruction_set):
    made = make_estimator(1, [25] * 30, 40, ridge=0.1)

    def walk(threads):
        search, mask, steps = make_search(made, threads=threads), np.zeros(30, bool), []
        for _ in range(8):
            moves = np.flatnonzero(~mask)
            steps.append(search.solve(mask, moves).ravel())
            best = search.best(mask, moves)
            steps.append(np.array([best.move, best.loss, best.now, best.solved, *best.x]))
            mask[moves[best.move]] = True
        return np.concatenate(steps)

    one = walk(1)
    np.testing.assert_array_equal(one, walk(2))
    np.testing.assert_array_equal(one, walk(5))


def test_calls_from_threads_take_turns():
    """Sixteen walks of one search at once, each from a subset of its own, have what one after another has."""
    made = make_estimator(4, [60] * 20, 30, ridge=0.1)
    starts = [np.arange(20) % 16 != start for start in range(16)]

    def minima(search, start):
        return np.concatenate([search.solve(start, range(20)).ravel() for _ in range(3)])

    expected = [minima(make_search(made), start) for start in starts]
    search = make_search(made)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda start: minima(search, start), starts))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-3 * np.abs(other).max())


@pytest.mark.parametrize("l2", [0.0, 1e-300, 1e-12, 1e-3])
@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_what_has_no_minimum_is_finite(instruction_set, l2, shift):
    """Separable rows, margins of ±1e4, next to no ridge."""
    made = make_estimator(2, [9, 1, 0, 17, 30], 5)
    np.abs(made.train.g, out=made.train.g)
    made.train.margin[:] += shift * np.random.default_rng(2).choice([0, 1], len(made.train))
    search = make_search(made, l2=l2)
    for members in ([], [0], [2], [0, 1, 2, 3, 4]):
        best = search.best(members, range(5))
        assert np.isfinite([best.loss, best.now, *best.x]).all()
        assert best.loss == pytest.approx(Exhaustive(made).loss_at(best.x), rel=1e-11)
        assert np.isfinite(search.solve(members, range(5))).all()


def test_bad_arguments_are_named():
    made = make_estimator(0, [5, 6], 4)
    solver = kernels.SubsetSolver(made.train.g, made.train.margin, made.group_ptr, divisor=made.divisor)
    g, h = made.valid.g, made.valid.margin
    for features, margins, shapes in ((g[:, :3], h, "(20, 3)"), (g, h[:3], "(3,)"), (g[:0], h[:0], "(0, 4)")):
        with pytest.raises(ValueError, match=r"\[v, 4\].*v >= 1") as error:
            kernels.NeighbourSearch(solver, features, margins, l2=1.0)
        assert shapes in str(error.value)
    for features, margins in ((np.where(g == g[1, 2], np.nan, g), h), (g, np.where(h == h[3], -np.inf, h))):
        with pytest.raises(ValueError, match="validation row is not finite"):
            kernels.NeighbourSearch(solver, features, margins, l2=1.0)
    search = kernels.NeighbourSearch(solver, g, h, l2=1.0)
    for subset, moves in (([0], [0, 2]), ([0, 2], [0]), ([0], [-1])):
        for method in (search.best, search.solve):
            with pytest.raises(ValueError, match="but there are 2 groups"):
                method(subset, moves)
    with pytest.raises(ValueError, match=r"bool \[m, 2\].*\(1, 3\)"):
        search.best(np.ones(3, bool), [0])
    with pytest.raises(ValueError, match="no moves"):
        search.best([0], [])
    assert search.solve([0], []).shape == (0, 4)


def test_too_many_dimensions_are_named():
    wide = kernels.NeighbourSearch.LARGEST_DIM + 1
    with pytest.raises(ValueError, match=f"at most {wide - 1} dimensions, got {wide}"):
        make_search(make_estimator(0, [2, 3], wide))
