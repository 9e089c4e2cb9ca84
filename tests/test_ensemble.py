"""The random ensemble: its scores, its subsets, and how many sources it keeps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from estimators import Known, known

from gradex_fast.select import FEW, MOST, Constraints, random_ensemble
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


@pytest.mark.parametrize(("fraction", "expected"), [(0.75, 5), (0.5, 4), (0.01, 1), (0.99, 6)])
def test_every_subset_of_the_ensemble_has_the_same_size(fraction, expected):
    made = known(2, 9, always=(4, 8))
    subsets = random_ensemble(made, subsets=50, fraction=fraction).subsets
    assert (subsets[:, made.candidates].sum(1) == expected).all()
    assert subsets[:, [4, 8]].all()
    assert len(np.unique(subsets, axis=0)) > 1  # never all of them: that would tell no source from another


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


LIMITED = Constraints(include=[2], exclude=[0, 5], costs=[9, 4, 3, 5, 2, 1, 6, 2], budget=11)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_a_budget_is_filled_by_score_up_to_the_size_asked_for(seed, keep):
    made = known(seed, 8)
    found = random_ensemble(made, subsets=60, keep=keep, constraints=LIMITED, seed=seed)
    kept, costs = {2}, np.array(LIMITED.costs)
    for source in sorted({1, 3, 4, 6, 7}, key=lambda i: found.scores[i]):
        others = {1, 3, 4, 6, 7} - kept - {source}
        more = itertools.combinations(others, max(0, keep - len(kept) - 1))
        if len(kept) < keep and any(costs[[*kept, source, *extra]].sum() <= 11 for extra in more):
            kept.add(source)
    assert set(found.chosen) == kept and len(kept) == keep
    assert found.details["cost"] == {"unit": "units", "spent": costs[list(kept)].sum(), "budget": 11}
    assert found.subsets[:, 2].all() and not found.subsets[:, [0, 5]].any()
    assert np.isnan(found.scores[[0, 5]]).all()
    assert found.scores[2] == pytest.approx(found.estimates.loss.mean())


def test_under_a_threshold_what_does_not_fit_is_passed_over():
    made = Known([-3.0, -2.0, -1.0, 5.0, 6.0, 7.0], spread=0)
    limits = Constraints(costs=[4, 5, 2, 0, 0, 0], budget=6)
    assert random_ensemble(made, subsets=100).chosen == (0, 1, 2)
    assert random_ensemble(made, subsets=100, constraints=limits).chosen == (0, 2)


@pytest.mark.parametrize("seed", range(3))
def test_a_threshold_in_nats(seed):
    made = known(seed, 8, always=(3,))
    scores = random_ensemble(made, subsets=50, seed=seed).scores
    for gamma in (np.nanmedian(scores), np.nanmin(scores) + 1e-6, 1e9, -1e9):
        found = random_ensemble(made, subsets=50, seed=seed, threshold=float(gamma))
        assert found.chosen == tuple(i for i in made.candidates if scores[i] < gamma)
        gap = found.details["threshold"]
        assert (gap is None) == (len(found.chosen) in (0, 7))
        assert gap is None or found.chosen == tuple(i for i in made.candidates if scores[i] < gap)


def test_one_source_is_kept_where_there_would_be_nothing_to_train_on():
    found = random_ensemble(known(0, 6), subsets=50, threshold=-1e9)
    assert found.chosen == (int(np.argmin(found.scores)),)


@pytest.mark.parametrize(("ratios", "counts"), [(FEW, [2, 4, 6, 8]), (MOST, [28, 30, 32, 34, 36, 38]), ((1.0,), [40])])
def test_a_sweep_lists_the_best_sources_of_each_ratio(ratios, counts):
    made = known(1, 40)
    found = random_ensemble(made, subsets=200, ratios=ratios)
    ranked = np.argsort(found.scores)
    rows = found.details["sweep"]
    assert [row["ratio"] for row in rows] == list(ratios)
    for row, count in zip(rows, counts, strict=True):
        assert row["sources"] == sorted(ranked[:count].tolist())
        assert row["loss"] == pytest.approx(made.loss(row["sources"]))
        assert row["low"] < row["loss"] < row["high"]
    best = min(rows, key=lambda row: row["loss"])
    assert found.chosen == tuple(best["sources"])
    kept = random_ensemble(made, subsets=200, ratios=ratios, keep=3)
    assert len(kept.chosen) == 3 and kept.details["sweep"] == rows


def test_all_included_leaves_nothing_to_choose():
    made = known(0, 3)
    for threshold in ("break", "cross-validation"):
        found = random_ensemble(made, subsets=8, threshold=threshold, constraints=Constraints(include=range(3)))
        assert found.chosen == (0, 1, 2) and found.details["cross_validation"] == []
        np.testing.assert_allclose(found.scores, made.loss(range(3)))


def test_the_include_counts_among_those_kept():
    made = known(2, 6)
    worst = int(np.argmax(random_ensemble(made, subsets=100, fraction=0.5).scores))
    found = random_ensemble(made, subsets=100, fraction=0.5, keep=2, constraints=Constraints(include=[worst]))
    assert worst in found.chosen and len(found.chosen) == 2


def test_progress_counts_over_all_fractions():
    made, seen = known(0, 5), []
    made.estimate = lambda masks, progress=None: (progress(len(masks)), type(made).estimate(made, masks))[1]
    random_ensemble(made, subsets=10, fraction=(0.3, 0.6), progress=seen.append, keep=2)
    assert seen == [10, 20]
