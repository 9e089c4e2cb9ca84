"""Forward and backward selection against brute force, over an estimator whose f̂ is a known function of the subset."""

from __future__ import annotations

import numpy as np
import pytest
from estimators import Known, known

from gradex_fast.select import backward_selection, forward_selection

FORMS = [(6, ()), (5, (2,)), (4, (0, 3)), (2, ()), (1, ())]


def greedy(made: Known, keep: int | None, adding: bool) -> list[int]:
    """The moves, one after another, each the best of all; by the definition."""
    everything = set(made.candidates.tolist())
    now, moves = (set() if adding else set(everything)), []
    best = np.inf if not now and not made.always else made.loss(now)
    fewest = 0 if made.always else 1
    while options := sorted(everything - now if adding else now):
        if len(now) == keep or (not adding and len(now) == fewest):
            break
        losses = {move: made.loss(now ^ {move}) for move in options}
        move = min(losses, key=losses.get)
        if keep is None and losses[move] >= best:
            break
        now, best = now ^ {move}, losses[move]
        moves.append(move)
    return moves


@pytest.mark.parametrize("adding", [True, False], ids=["forward", "backward"])
@pytest.mark.parametrize(("size", "always"), FORMS)
@pytest.mark.parametrize("seed", range(4))
def test_greedy_selection_is_brute_force(seed, size, always, adding):
    made, search = known(seed, size, always), forward_selection if adding else backward_selection
    for keep in (None, *range(1, len(made.candidates) + 1)):
        found, moves = search(made, keep=keep), greedy(made, keep, adding)
        assert [step["source"] for step in found.path] == moves
        chosen = set(moves) if adding else set(made.candidates.tolist()) - set(moves)
        assert found.chosen == tuple(sorted(chosen))
        assert keep is None or len(chosen) == keep
        assert [step["loss"] for step in found.path][-1:] == [pytest.approx(made.loss(chosen))][: len(moves)]
        assert found.subsets[:, list(always)].all()
        assert len(found.estimates) == len(found.subsets)
        np.testing.assert_allclose(found.estimates.loss, made.estimate(found.subsets).loss)


@pytest.mark.parametrize("search", [forward_selection, backward_selection])
def test_the_score_is_what_a_source_changes_in_the_chosen_set(search):
    made = known(7, 6, always=(1,))
    found = search(made)
    changes = {i: made.effects[i] + 0.0 for i in made.candidates}
    members = [*found.chosen, 1]
    for i in made.candidates:
        changes[i] += sum(made.pairs[min(i, j), max(i, j)] for j in members if j != i)
        low, high = np.percentile(made.resampling @ changes[i], [2.5, 97.5])
        assert found.scores[i] == pytest.approx(changes[i].mean())
        assert (found.low[i], found.high[i]) == (pytest.approx(low), pytest.approx(high))
    assert np.isnan([found.scores[1], found.low[1], found.high[1]]).all()
    assert (found.scores[list(found.chosen)] < 0).all()


@pytest.mark.parametrize("search", [forward_selection, backward_selection])
def test_where_no_source_helps_the_targets_own_rows_are_enough(search):
    assert search(Known([1.0, 2.0, 1.5, 0.0], always=[3])).chosen == ()
    assert search(Known([1.0, 2.0, 1.5])).chosen == (0,)
