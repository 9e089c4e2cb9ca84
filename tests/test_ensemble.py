"""The random ensemble: its scores, its subsets, and how many sources it keeps."""

from __future__ import annotations

import numpy as np
import pytest
from estimators import Known, known

from gradex_fast.select import random_ensemble
from gradex_fast.select.estimator import in_tie_order


@pytest.mark.parametrize(("size", "always"), [(6, ()), (5, (2,)), (4, (0, 3)), (2, ())])
def test_the_ensembles_score_is_the_mean_over_subsets_that_hold_the_source(size, always):
    made = known(1, size, always)
    found = random_ensemble(made, subsets=60, fraction=0.6)
    for i in made.candidates:
        losses = found.estimates.loss[found.subsets[:, i]]
        error = losses.std(ddof=1) / np.sqrt(len(losses))
        assert found.scores[i] == pytest.approx(losses.mean())
        assert found.low[i] == pytest.approx(losses.mean() - 1.96 * error)
        assert found.high[i] == pytest.approx(losses.mean() + 1.96 * error)
    assert not set(found.chosen) & set(always)
    assert found.path == ()


@pytest.mark.parametrize(("fraction", "expected"), [(0.75, 5), (0.5, 4), (0.01, 1), (0.99, 7)])
def test_every_subset_of_the_ensemble_has_the_same_size(fraction, expected):
    made = known(2, 9, always=(4, 8))
    subsets = random_ensemble(made, subsets=50, fraction=fraction).subsets
    assert (subsets[:, made.candidates].sum(1) == expected).all()
    assert subsets[:, [4, 8]].all()
    assert len(np.unique(subsets, axis=0)) > 1 or expected == 7


def test_the_subsets_hang_on_the_seed_alone():
    first, again, other = (random_ensemble(known(3, 8), subsets=30, seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.subsets, again.subsets)
    np.testing.assert_array_equal(first.scores, again.scores)
    assert first.chosen == again.chosen
    assert (first.subsets != other.subsets).any()


@pytest.mark.parametrize("keep", [1, 3, 7])
def test_so_many_are_kept_as_are_asked_for(keep):
    found = random_ensemble(known(5, 8, always=(2,)), subsets=40, keep=keep)
    assert sorted(found.scores[list(found.chosen)]) == sorted(np.delete(found.scores, 2))[:keep]
    assert len(found.chosen) == keep


def test_the_seed_orders_equals():
    made, kept = Known(np.zeros(5), spread=0), set()
    for seed in range(20):
        chosen = random_ensemble(made, subsets=20, keep=2, seed=seed).chosen
        assert chosen == tuple(sorted(in_tie_order(made.candidates, seed)[:2]))
        kept.add(chosen)
    assert len(kept) > 5


def test_one_source():
    found = random_ensemble(Known([1.0]), subsets=5)
    assert found.chosen == (0,)
    assert found.scores == pytest.approx(Known([1.0]).loss([0]))


def test_a_source_in_no_subset_has_no_score_and_comes_last():
    found = random_ensemble(known(6, 30), subsets=2, fraction=0.2, keep=8)
    unseen = ~found.subsets.any(0)
    assert unseen.any() and np.isnan(found.scores[unseen]).all()
    assert not unseen[list(found.chosen)].any()


def test_a_source_in_no_subset_is_not_kept_unasked():
    found = random_ensemble(Known([-1.0] * 15 + [1.0] * 15), subsets=2, fraction=0.2)
    unseen, chosen = ~found.subsets.any(0), list(found.chosen)
    assert unseen.any() and not unseen[chosen].any()
    assert 0 < len(chosen) <= (~unseen).sum()


@pytest.mark.parametrize("always", [(), (9,)])
@pytest.mark.parametrize("seed", range(3))
def test_the_planted_sources_lie_below_the_natural_break(seed, always):
    planted = np.random.default_rng(seed).permutation(9)[:4]
    effects = np.where(np.isin(np.arange(10), planted), -1.0, 1.0)
    found = random_ensemble(Known(effects[: 9 + len(always)], always=always), subsets=200)
    assert found.chosen == tuple(sorted(planted.tolist()))


@pytest.mark.parametrize("seed", range(6))
def test_the_break_is_the_split_of_least_spread_within_its_classes(seed):
    made = known(seed, 8)
    found = random_ensemble(made, subsets=200)
    ordered, ranked = np.sort(found.scores), np.argsort(found.scores)
    within = {k: sum(((part - part.mean()) ** 2).sum() for part in np.split(ordered, [k])) for k in range(1, 8)}
    count = min(within, key=within.get)
    gain = made.loss(range(8)) - made.loss(ranked[:count])  # of dropping the upper class, and certain or not
    rows = -made.rows(made.estimate(np.isin(np.arange(8), ranked[:count])[None]).x)[0] + made.rows(np.ones((1, 8)))[0]
    kept = count if gain > rows.std() / np.sqrt(len(rows)) else 8
    assert found.chosen == tuple(sorted(ranked[:kept].tolist()))


def test_sources_that_cannot_be_told_apart_are_all_kept():
    assert random_ensemble(Known([-1.0, -1.1, -0.9, -1.05]), subsets=100).chosen == (0, 1, 2, 3)
    noise = Known(np.zeros(6), spread=2.0)
    noise.effects -= noise.effects.mean(1, keepdims=True) - [[1e-3], [-1e-3], [0], [0], [1e-3], [0]]
    assert random_ensemble(noise, subsets=100).chosen == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize(("standard_errors", "chosen"), [(0.9, (0, 1)), (1.1, (0,))])
def test_one_standard_error_tells_the_classes_apart(standard_errors, chosen):
    made = Known([-1.0, 0.0])
    rows = np.random.default_rng(1).normal(size=made.effects.shape[1])
    rows = (rows - rows.mean()) / rows.std()
    made.effects[1] = rows + standard_errors / np.sqrt(len(rows))
    assert random_ensemble(made, subsets=50, fraction=0.5).chosen == chosen
