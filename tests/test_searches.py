"""Forward, backward and floating selection with constraints, against their definitions and against all subsets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from estimators import Known, known
from searches import PATHS, Rules, chosen_of

from gradex_fast.select import Constraints, backward_selection, floating_selection, forward_selection
from gradex_fast.select.estimator import in_tie_order

SEARCHES = {"forward": forward_selection, "backward": backward_selection, "floating": floating_selection}
LIMITS = {
    "free": {},
    "include": {"include": (1, 3)},
    "exclude": {"exclude": (0,)},
    "both": {"include": (4,), "exclude": (0, 1)},
    "budget": {"costs": [5, 2, 4, 3, 6, 1, 0], "budget": 9},
    "all three": {"include": (1,), "exclude": (3,), "costs": [5, 2, 4, 3, 6, 1, 0], "budget": 10},
}
ALL = pytest.mark.parametrize("name", SEARCHES)


def sets_of(found, start: set[int]) -> list[set[int]]:
    """The sets that a path goes through."""
    sets = [start]
    for step in found.path:
        assert step["added"] is (step["source"] not in sets[-1])
        sets.append(sets[-1] ^ {step["source"]})
    return sets


def keeps(rules: Rules) -> list[int]:
    """Sizes of which there is an allowed set."""
    return [k for k in range(max(1, len(rules.include)), len(rules.allowed) + 1) if rules.can_grow(rules.include, k)]


@ALL
@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("always", [(), (6,)], ids=["", "always"])
@pytest.mark.parametrize("seed", range(4))
def test_every_search_is_its_definition(name, limits, always, seed):
    made = known(seed, 7 if always else 6, always)
    rules, constraints = Rules(made, **limits), Constraints(**limits)
    start = rules.allowed if name == "backward" else rules.include
    for keep, whole in itertools.product((None, *keeps(rules)), (False, True)):
        expected = PATHS[name](rules, keep, whole)
        found = SEARCHES[name](made, keep=keep, whole=whole, constraints=constraints)
        assert sets_of(found, set(start)) == expected
        chosen = chosen_of(rules, expected, keep, last=not whole and name != "floating")
        assert set(found.chosen) == chosen == expected[found.details["steps"]]
        assert [step["loss"] for step in found.path] == pytest.approx([made.loss(s) for s in expected[1:]])
        assert rules.include <= chosen <= rules.allowed and rules.fits(chosen)
        assert found.subsets[:, list(always)].all() and len(found.subsets) == len(found.estimates)
        if "budget" in limits:
            spent = sum(limits["costs"][i] for i in chosen)
            assert found.details["cost"] == {"unit": "units", "spent": spent, "budget": limits["budget"]}
        else:
            assert "cost" not in found.details


def lowest_of_size(made: Known, keep: int) -> float:
    return min(made.loss(s) for s in itertools.combinations(made.candidates, keep))


@pytest.mark.parametrize("seed", range(12))
def test_one_step_from_an_end_is_exhaustive_search(seed):
    made = known(seed, 7)
    for name, keep in (("forward", 1), ("floating", 1), ("backward", 6)):
        assert made.loss(SEARCHES[name](made, keep=keep).chosen) == pytest.approx(lowest_of_size(made, keep))


@pytest.mark.parametrize(
    ("name", "pair", "early", "best"),
    [
        ("forward", -3.0, (0,), (0, 1, 2)),  # 1 and 2 help together only
        ("floating", -3.0, (0,), (0, 1, 2)),
        ("backward", -1.5, (0, 1, 2), (0,)),  # they hurt, but one without the other more
    ],
)
def test_the_whole_path_reaches_what_an_early_stop_misses(name, pair, early, best):
    pairs = np.zeros((4, 4))
    pairs[1, 2] = pair
    made = Known([-1.0, 1.0, 1.0, 9.0], pairs, spread=0)
    assert SEARCHES[name](made).chosen == early
    found = SEARCHES[name](made, whole=True)
    assert found.chosen == best
    assert len(found.path) == {"forward": 4, "backward": 3, "floating": 6}[name]
    assert found.details["steps"] == 3


def trap() -> Known:
    """Source 0 is the best alone, but 1 and 2 together are best, and 0 spoils them."""
    pairs = np.zeros((4, 4))
    pairs[1, 2], pairs[0, 1], pairs[0, 2] = -2.0, -0.3, -0.3
    return Known([-1.0, -0.5, -0.5, 1.0], pairs, spread=0)


def test_floating_goes_back_where_forward_cannot():
    made = trap()
    forward, floating = forward_selection(made, keep=2), floating_selection(made, keep=2)
    assert 0 in forward.chosen
    assert floating.chosen == (0, 1) or floating.chosen == (0, 2)  # 2 is reached before there is anything to take back
    whole = floating_selection(made, keep=2, whole=True)
    assert whole.chosen == (1, 2)
    assert made.loss(whole.chosen) == min(made.loss(s) for s in itertools.combinations(range(4), 2))
    assert [step["added"] for step in whole.path].count(False) >= 1


@pytest.mark.parametrize("seed", range(30))
def test_floating_ends_where_sources_quarrel(seed):
    draw = np.random.default_rng(seed)
    made = Known(draw.normal(size=9), draw.normal(scale=3.0, size=(9, 9)))
    found = floating_selection(made, whole=True)
    removed = sum(not step["added"] for step in found.path)
    assert len(found.path) == 9 + 2 * removed  # it ends with all nine
    sets = sets_of(found, set())
    assert made.loss(found.chosen) == min(made.loss(s) for s in sets[1:])


def test_floating_removes_somewhere_and_is_better_for_it():
    """Over 30 quarrels: never worse on the whole path's best of each size than forward's, in most better somewhere."""
    better = 0
    for seed in range(30):
        draw = np.random.default_rng(seed)
        made = Known(draw.normal(size=9), draw.normal(scale=3.0, size=(9, 9)))
        forward, floating = (search(made, whole=True) for search in (forward_selection, floating_selection))
        better += made.loss(floating.chosen) < made.loss(forward.chosen) - 1e-9
    assert better >= 5


@ALL
def test_equals_come_in_the_seeds_order(name):
    made, firsts = Known(np.zeros(5), spread=0), set()
    for seed in range(30):
        order = in_tie_order(made.candidates, seed).tolist()
        assert sorted(order) == [0, 1, 2, 3, 4]
        path = [step["source"] for step in SEARCHES[name](made, keep=2, seed=seed).path]
        assert path == order[: 3 if name == "backward" else 2]
        firsts.add(path[0])
        again = SEARCHES[name](made, keep=2, seed=seed)
        assert [step["source"] for step in again.path] == path
    assert firsts == set(range(5))


def test_where_nothing_improves_equals_are_left():
    made = Known(np.zeros(4), spread=0)
    assert len(forward_selection(made).chosen) == 1  # one source at least; a second does not improve
    assert len(floating_selection(made).chosen) == 1
    assert backward_selection(made).chosen == (0, 1, 2, 3)


@ALL
def test_one_source(name):
    for made in (Known([1.0]), Known([-1.0])):
        for options in ({}, {"keep": 1}, {"whole": True}, {"constraints": Constraints(include=[0])}):
            found = SEARCHES[name](made, **options)
            assert found.chosen == (0,)
            assert len(found.path) == (name != "backward" and "constraints" not in options)


@ALL
def test_all_included_leaves_nothing_to_search(name):
    made = known(0, 4)
    found = SEARCHES[name](made, constraints=Constraints(include=range(4)))
    assert found.chosen == (0, 1, 2, 3) and found.path == ()
    np.testing.assert_allclose(found.estimates.loss, made.loss(range(4)))


@ALL
def test_progress_counts_the_steps(name):
    seen: list[int] = []
    found = SEARCHES[name](known(3, 6), whole=True, progress=seen.append)
    assert seen == list(range(1, len(found.path) + 1))
