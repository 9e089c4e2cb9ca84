"""Random subsets: their sizes, what every one holds, and how often each source is drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from estimators import Known, known

from gradex_fast.select import SAMPLINGS, Constraints, random_subsets

SHAPES = [(9, 0.75), (8, 0.5), (10, 0.2), (7, 0.01), (7, 0.99), (5, 0.5), (2, 0.5), (1, 0.5)]


@pytest.mark.parametrize(("size", "fraction"), SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_balanced_subsets_draw_every_source_equally_often(size, fraction, seed):
    made = known(0, size + 2, always=(1, size))
    masks = random_subsets(made, 40, fraction, seed, "balanced")[:, made.candidates]
    assert (masks.sum(1) == min(max(1, round(fraction * size)), max(1, size - 1))).all()  # never all of several
    assert np.ptp(masks.sum(0)) <= 1
    assert masks.all() or len(np.unique(masks, axis=0)) > size // 2 - 1


def test_balanced_subsets_hold_pairs_as_often_as_independent_ones():
    masks = random_subsets(known(0, 12), 4000, 0.25, 0, "balanced")
    together = masks[masks[:, 0]].mean(0)[1:]
    assert np.abs(together - 2 / 11).max() < 0.05  # 1000 draws: four standard errors
    overlap = [(a & b).sum() for a, b in itertools.pairwise(masks)]
    assert np.mean(overlap) == pytest.approx(9 / 12, abs=0.05)  # and no subset knows of the one before


@pytest.mark.parametrize("size", [8, 5, 2])
@pytest.mark.parametrize("count", [40, 41])
def test_antithetic_subsets_come_with_their_complements(size, count):
    made = known(0, size + 1, always=(0,))
    masks = random_subsets(made, count, 0.5, 3, "antithetic")
    drawn = masks[:, made.candidates]
    assert masks.shape == (count, size + 1) and masks[:, 0].all()
    assert (drawn[0 : count - 1 : 2] ^ drawn[1:count:2]).all()
    assert len(np.unique(drawn[::2], axis=0)) > 1
    assert set(drawn.sum(1)) <= {size // 2, size - size // 2}


def test_of_one_source_there_is_no_complement():
    assert random_subsets(Known([1.0]), 3, 0.5, 0, "antithetic").all()


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_included_sources_are_in_every_subset_and_excluded_in_none(sampling):
    made = known(0, 9, always=(8,))
    masks = random_subsets(made, 30, 0.5, 1, sampling, Constraints(include=[2, 5], exclude=[0]))
    assert masks[:, [2, 5, 8]].all() and not masks[:, 0].any()
    free = masks[:, [1, 3, 4, 6, 7]]
    assert set(free.sum(1)) <= {2, 3} and free.any(0).all() and not free.all(0).any()


def test_all_included_is_one_subset():
    masks = random_subsets(known(0, 3), 4, 0.5, 1, "balanced", Constraints(include=range(3)))
    assert masks.shape == (4, 3) and masks.all()


def test_independent_subsets_are_what_they_were():
    """Anchors of older runs are these subsets, fine-tuned for real."""
    made, draw = known(0, 9, always=(4,)), np.random.default_rng(7)
    for mask in random_subsets(made, 20, 0.75, 7):
        members = draw.choice(made.candidates, 6, replace=False)
        assert set(np.flatnonzero(mask)) == {*members.tolist(), 4}


@pytest.mark.parametrize(
    ("fraction", "sampling", "message"),
    [
        (0.4, "antithetic", "antithetic sampling is for a fraction of 0.5, not 0.4"),
        (0.5, "stratified", "sampling must be one of independent, balanced, antithetic, not 'stratified'"),
    ],
)
def test_what_does_not_go_together_is_refused(fraction, sampling, message):
    with pytest.raises(ValueError, match=message):
        random_subsets(known(0, 4), 3, fraction, 0, sampling)
