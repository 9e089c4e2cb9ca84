"""What a selection must hold, must not hold and may cost: by hand, by brute force, and refused by name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gradex_fast.constraints import Constraints

NAMES = ["alpaca", "code", "maths", "poems"]
FOUR = np.arange(4)


def test_names_become_indices():
    found = Constraints.named(NAMES, ["poems", "code", "code"], ["alpaca"])
    assert (found.include, found.exclude, found.names) == ((1, 3), (0,), NAMES)
    assert Constraints.named(NAMES).allowed(FOUR).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        (["alpca"], [], "include: no source is named 'alpca'; did you mean 'alpaca'?"),
        ([], ["code", "math"], "exclude: no source is named 'math'; did you mean 'maths'?"),
        (["x9"], [], "include: no source is named 'x9'"),
    ],
)
def test_unknown_names(include, exclude, message):
    with pytest.raises(ValueError) as error:
        Constraints.named(NAMES, include, exclude)
    assert str(error.value) == message


ROWS = {"costs": [8, 5, 3, 9], "unit": "rows", "names": NAMES}


@pytest.mark.parametrize(
    ("options", "keep", "message"),
    [
        ({"include": [4]}, None, "include: 4 is no source that can be chosen"),
        ({"exclude": [-1]}, None, "exclude: -1 is no source that can be chosen"),
        ({"include": [1, 2], "exclude": [2], "names": NAMES}, None, "maths stands in include and in exclude"),
        ({"include": [1, 2], "exclude": [2]}, None, "2 stands in include and in exclude"),
        ({"exclude": range(4)}, None, "exclude leaves no source to choose from"),
        ({"include": [1, 2]}, 1, "keep is 1, fewer than the 2 sources of include"),
        ({"exclude": [1, 2]}, 3, "keep is 3, more than the 2 source(s) that exclude leaves"),
        ({"budget": 10}, None, "costs must be a number >= 0 for every source, where there is a budget"),
        ({"budget": 10, "costs": [1, 2, 3]}, None, "costs must be a number >= 0 for every source"),
        ({"budget": 10, "costs": [1, 2, 3, -1]}, None, "costs must be a number >= 0 for every source"),
        ({"budget": 10, "costs": [1, 2, 3, np.nan]}, None, "costs must be a number >= 0 for every source"),
        (
            ROWS | {"budget": 12, "include": [0, 1]},
            None,
            "budget of 12 rows is less than what must be included: alpaca 8, code 5",
        ),
        (ROWS | {"budget": 2}, None, "budget of 2 rows holds no 1 source(s): the smallest take 3"),
        (ROWS | {"budget": 7}, 2, "budget of 7 rows holds no 2 source(s): the smallest take 8"),
        (ROWS | {"budget": 7, "exclude": [1, 2]}, None, "budget of 7 rows holds no 1 source(s): the smallest take 8"),
        (ROWS | {"budget": 15, "include": [3]}, 3, "budget of 15 rows holds no 3 source(s): the smallest take 17"),
    ],
)
def test_what_no_choice_can_meet_is_refused(options, keep, message):
    with pytest.raises(ValueError) as error:
        Constraints(**options).check(FOUR, keep)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("options", "keep"),
    [
        ({}, None),
        ({}, 9),
        ({"include": range(4)}, 4),
        ({"exclude": [0, 1, 2]}, 1),
        (ROWS | {"budget": 13, "include": [0, 1]}, 2),
        (ROWS | {"budget": 3}, 1),
        (ROWS | {"budget": 17, "include": [3]}, 3),
        (ROWS | {"budget": 0, "costs": [0, 1, 1, 1]}, None),
    ],
)
def test_what_can_just_be_met_is_not(options, keep):
    Constraints(**options).check(FOUR, keep)


def mask_of(members) -> np.ndarray:
    return np.isin(np.arange(7), [*members, 6])  # group 6 is in every subset, and no candidate


@pytest.mark.parametrize("seed", range(8))
def test_moves_are_those_from_which_the_size_can_be_reached(seed):
    draw = np.random.default_rng(seed)
    costs, candidates = draw.integers(0, 6, 6), draw.permutation(6)
    for budget, keep, count in itertools.product((4, 8, 12), (None, 2, 4), (0, 1, 3)):
        members = set(draw.choice(6, count, replace=False).tolist())
        limits = Constraints(costs=costs, budget=budget, exclude=[5] if seed % 2 and 5 not in members else ())
        allowed = set(limits.allowed(candidates).tolist())

        def reachable(start: set[int], size: int, allowed=allowed, budget=budget) -> bool:
            more = itertools.combinations(allowed - start, max(0, size - len(start)))
            return any(costs[[*start, *others]].sum() <= budget for others in more)

        expected = [i for i in candidates if i in allowed - members and reachable(members | {i}, keep or 0)]
        assert limits.addable(mask_of(members), candidates, keep).tolist() == expected


@pytest.mark.parametrize("seed", range(8))
def test_removals_leave_enough_that_fits(seed):
    draw = np.random.default_rng(seed)
    costs, candidates = draw.integers(0, 6, 6), draw.permutation(6)
    for budget, fewest in itertools.product((6, 9, 12), (1, 2, 3)):
        members = set(draw.choice(6, 4, replace=False).tolist())
        fixed = min(members)
        limits = Constraints(include=[fixed], costs=costs, budget=budget)

        def reachable(start: set[int], fixed=fixed, budget=budget, fewest=fewest) -> bool:
            sets = itertools.combinations(start - {fixed}, fewest - 1)
            return any(costs[[fixed, *others]].sum() <= budget for others in sets)

        expected = [i for i in candidates if i in members - {fixed} and reachable(members - {i})]
        assert limits.removable(mask_of(members), candidates, fewest).tolist() == expected


def test_no_budget_costs_nothing():
    limits = Constraints(include=[1], exclude=[0])
    assert limits.spent([0, 1, 2]) == 0 and limits.fits(range(4)) and limits.account([1]) == {}
    assert limits.addable(mask_of([1]), FOUR).tolist() == [2, 3]
    assert limits.removable(mask_of([1, 2]), FOUR, 1).tolist() == [2]
    assert Constraints(**ROWS, budget=20).account([1, 2]) == {"cost": {"unit": "rows", "spent": 8.0, "budget": 20}}
