"""The batched path: many subsets near the shared start, on every instruction set, several blocks and chunks."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from regressions import assert_same_bits, assert_solved, make_data

from gradex_fast import kernels, native
from gradex_fast.reference import solve as reference

SIZES = [200, 64, 65, 1, 0, 127, 63, 16, 15, 17, 300, 128]
"""Rows of groups: one block and several, full and not, of 4 to 64 rows as the instruction sets have them."""


def subsets_of(groups, count, seed=0, share=0.75):
    masks = np.random.default_rng(seed).random((count, groups)) < share
    masks[:, 0] = True
    return masks


def float64_solves(caplog) -> int:
    return sum(int(record.args[0]) for record in caplog.records if "needed float64" in record.msg)


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.parametrize("dim", [1, 17, 37, 64, 101, 130])
@pytest.mark.parametrize("weighted", [False, True])
def test_near_subsets_need_no_float64(instruction_set, dim, weighted, caplog):
    caplog.set_level(logging.DEBUG, "gradex_fast")
    data, masks = make_data(SIZES, dim), subsets_of(len(SIZES), 30)
    weights = np.random.default_rng(1).choice([0.0, 0.5, 3.0], sum(SIZES)) if weighted else None
    with native.using_instruction_set(instruction_set):
        found = kernels.solve(*data, masks, l2=0.05, weights=weights)
    assert float64_solves(caplog) == 0
    assert_solved(data, masks, found, 0.05, weights)


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.parametrize("dim", [1, 17, 101])
@pytest.mark.parametrize("share", [0.05, 0.75, 1.0])
def test_one_divisor_for_all_subsets(instruction_set, dim, share):
    """Small subsets, of which each row then says less beside the ridge, and large ones."""
    data, masks = make_data(SIZES, dim), subsets_of(len(SIZES), 30, share=share)
    weights = np.random.default_rng(1).choice([0.5, 3.0], sum(SIZES))
    with native.using_instruction_set(instruction_set):
        solver = kernels.SubsetSolver(*data, weights=weights, divisor=700.0)
        found, exact = (solver.solve(masks, l2=0.05, tol=tol) for tol in (1e-6, 0.0))
    assert_solved(data, masks, found, 0.05, weights, divisor=700.0)
    assert np.abs(found.x - exact.x).max() < 0.01 * np.abs(exact.x).max()


def test_the_own_weights_as_divisor_change_nothing():
    data = make_data(SIZES, 17)
    everything, rows = np.ones((1, len(SIZES)), bool), float(sum(SIZES))
    own = kernels.solve(*data, everything, l2=0.05)
    shared = kernels.SubsetSolver(*data, divisor=rows).solve(everything, l2=0.05)
    assert_same_bits(own, shared)


@pytest.mark.parametrize("divisor", [0.0, -1.0, np.inf, np.nan])
def test_a_divisor_that_is_none(divisor):
    with pytest.raises(ValueError, match="divisor must be a positive number"):
        kernels.SubsetSolver(*make_data([5], 3), divisor=divisor)


def test_subsets_are_told_apart_to_a_hundredth():
    """f̂'s error is under 1 % of its spread over subsets, though that is only 1e-3 of f̂."""
    data, masks = make_data([50] * 60, 30), subsets_of(60, 200)
    rows = np.random.default_rng(9).standard_normal((300, 30)) / np.sqrt(30)
    found, best = kernels.solve(*data, masks, l2=0.01), reference.solve(*data, masks, l2=0.01)[0]
    estimate, exact = (np.logaddexp(0, -(1 + x @ rows.T)).mean(1) for x in (found.x, best))
    assert np.std(estimate - exact) < 0.01 * np.std(exact)


def test_far_subsets_are_solved_in_float64(caplog):
    """Two groups of sixty, whose rows are unlike the others'."""
    caplog.set_level(logging.DEBUG, "gradex_fast")
    features, margins, pointer = make_data([50] * 60, 30)
    features[:100] *= -3
    masks = np.arange(60) < np.array([[1], [2]])
    found = kernels.solve(features, margins, pointer, masks, l2=1e-3)
    assert float64_solves(caplog) == 2
    assert_solved((features, margins, pointer), masks, found, 1e-3)


@pytest.mark.parametrize("count", [1, 5, 257, 700])
def test_same_bits_for_any_threads_batch_and_order(count):
    data, masks = make_data(SIZES, 37), subsets_of(len(SIZES), count)
    solver = kernels.SubsetSolver(*data)
    one = solver.solve(masks, l2=0.01, threads=1)
    for threads in (2, 3, 7):
        assert_same_bits(one, solver.solve(masks, l2=0.01, threads=threads))
    backwards = solver.solve(masks[::-1], l2=0.01, threads=2)
    assert_same_bits(one, backwards, slice(None, None, -1))
    alone = solver.solve(masks[:1], l2=0.01)
    np.testing.assert_array_equal(alone.x[0], one.x[0])


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.parametrize("dim", [1, 16, 37, 101])
def test_blocks_that_are_packed_as_they_are_read_give_the_same_bits(instruction_set, dim):
    data, masks = make_data(SIZES, dim), subsets_of(len(SIZES), 30)
    validation = make_data([90], dim, seed=1)[:2]
    with native.using_instruction_set(instruction_set):
        kept, packed_anew = (kernels.SubsetSolver(*data, most_packed=size) for size in (1 << 30, 0))
        assert_same_bits(kept.solve(masks, l2=0.01), packed_anew.solve(masks, l2=0.01))
        found = [
            kernels.NeighbourSearch(s, *validation, l2=0.01).best(masks[1], [1, 2, 3]) for s in (kept, packed_anew)
        ]
    assert found[0].move == found[1].move and found[0].x.tobytes() == found[1].x.tobytes()


def test_duplicates_have_the_same_bits():
    data, masks = make_data(SIZES, 37), np.repeat(subsets_of(len(SIZES), 1), 40, axis=0)
    found = kernels.solve(*data, masks, l2=0.01)
    assert (found.x == found.x[0]).all()
    assert (found.loss == found.loss[0]).all()


def test_progress_counts_to_the_end_and_stops_when_asked():
    data, masks, seen = make_data(SIZES, 37), subsets_of(len(SIZES), 600), []
    solver = kernels.SubsetSolver(*data)
    plain = solver.solve(masks, l2=0.01)
    assert_same_bits(plain, solver.solve(masks, l2=0.01, threads=1, progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == 600

    def stop(done: int) -> None:
        raise InterruptedError(done)

    with pytest.raises(InterruptedError):
        solver.solve(masks, l2=0.01, progress=stop)
    assert_same_bits(plain, solver.solve(masks, l2=0.01))


@pytest.mark.parametrize("instruction_set", native.instruction_sets())
@pytest.mark.parametrize("rows", [1, 5, 17, 101, 687])
def test_losses(instruction_set, rows):
    """softplus(−(h + g·x)) at every point and row, from −50 to 50, and its mean."""
    rng = np.random.default_rng(rows)
    x, features, margins = rng.normal(size=(14, 17)), rng.normal(size=(rows, 17)), 10 * rng.normal(size=rows)
    exact = np.logaddexp(0, -(margins + x @ features.astype(np.float32).T))
    with native.using_instruction_set(instruction_set):
        np.testing.assert_allclose(kernels.row_losses(x, features, margins), exact, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(kernels.mean_losses(x, features, margins), exact.mean(1), rtol=2e-6)
        assert kernels.row_losses(x[:0], features, margins).shape == (0, rows)
