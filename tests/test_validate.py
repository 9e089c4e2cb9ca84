"""Cross-validation of γ and α over subsets, against its definition in loops; the scores' convergence."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from estimators import Known, known
from scipy.stats import spearmanr

from gradex_fast.select import random_ensemble, random_subsets
from gradex_fast.select.convergence import convergence
from gradex_fast.select.validate import Validated, cross_validate


def parts_of(made, fractions, count=40) -> list[tuple[np.ndarray, np.ndarray]]:
    masks = [random_subsets(made, count, fraction, (5, index)) for index, fraction in enumerate(fractions)]
    return [(mask, made.estimate(mask).loss) for mask in masks]


def score(mask, losses, i) -> float:
    held = [f for row, f in zip(mask, losses, strict=True) if row[i]]
    return float(np.mean(held)) if held else np.nan


def held_out_errors(parts, own, gamma, free, folds) -> np.ndarray:
    """(line - f̂)² of every subset from the folds that it is not in, written out."""
    errors = []
    for held in range(max(map(max, folds)) + 1):
        mask, losses = (part[folds[own] != held] for part in parts[own])
        dear = [i for i in free if not score(mask, losses, i) < gamma]
        fit, judge = [], []
        for (mask, losses), fold in zip(parts, folds, strict=True):
            for row, f, k in zip(mask, losses, fold, strict=True):
                share = sum(row[i] for i in dear) / sum(row[i] for i in free)
                (judge if k == held else fit).append((share, f))
        x, y = np.array(fit).T
        slope, middle = (np.polyfit(x, y, 1)[0], x.mean()) if np.ptp(x) > 1e-6 else (0.0, 0.0)
        for share, f in judge:
            errors.append((y.mean() + max(slope, 0.0) * (share - middle) - f) ** 2)
    return np.array(errors)


def folds_of(count: int, folds: int, seed: int) -> np.ndarray:
    pairs = np.random.default_rng([seed, 2]).permutation((count + 1) // 2) % folds
    return np.array([pairs[index // 2] for index in range(count)])


@pytest.mark.parametrize(("size", "always"), [(6, ()), (7, (2,)), (3, ())])
@pytest.mark.parametrize("fractions", [(0.5,), (0.75, 0.4)])
@pytest.mark.parametrize("seed", range(3))
def test_the_best_threshold_is_that_of_the_definition(size, always, fractions, seed):
    made = known(seed, size, always)
    free, parts = made.candidates, parts_of(made, fractions)
    folds = [folds_of(40, 5, seed + index) for index in range(len(parts))]
    for own, found in enumerate(cross_validate(parts, free, seed)):
        ordered = sorted({score(*parts[own], i) for i in free})
        grid = [np.inf, *((a + b) / 2 for a, b in itertools.pairwise(ordered))]
        errors = [held_out_errors(parts, own, gamma, free, folds) for gamma in grid]
        best = int(np.argmin([error.sum() for error in errors]))
        gain = errors[0] - errors[best]
        certain = gain.mean() > gain.std() / np.sqrt(len(gain))
        assert found.threshold == (pytest.approx(grid[best]) if certain else np.inf)
        assert found.explained == pytest.approx(gain.sum() / errors[0].sum() if certain else 0, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_planted_sources_lie_below_the_threshold(seed):
    planted = np.random.default_rng(seed).permutation(12)[:5]
    made = Known(np.where(np.isin(np.arange(12), planted), -1.0, 1.0))
    found = random_ensemble(made, subsets=300, fraction=(0.75, 0.5, 0.25), threshold="cross-validation", seed=seed)
    assert found.chosen == tuple(sorted(planted.tolist()))
    table = found.details["cross_validation"]
    assert [row["fraction"] for row in table] == [0.75, 0.5, 0.25]
    best = max(table, key=lambda row: row["explained"])
    assert found.details["fraction"] == best["fraction"] and best["explained"] > 0.5
    assert {source for source in range(12) if found.scores[source] < best["threshold"]} == set(planted)
    assert len(found.subsets) == len(found.estimates) == 900


def test_of_noise_everything_is_kept():
    """f̂ that has nothing to do with the subset: no split tells held-out subsets apart."""
    draw, kept = np.random.default_rng(0), 0
    for seed in range(20):
        masks = random_subsets(known(0, 10), 200, 0.5, seed)
        (found,) = cross_validate([(masks, draw.normal(size=200))], np.arange(10), seed)
        kept += found == Validated(np.inf, 0.0)
        assert found.explained < 0.1
    assert kept >= 12


def test_losses_that_all_agree_give_no_split():
    masks = random_subsets(known(0, 6), 20, 0.5, 0)
    assert cross_validate([(masks, np.ones(20))], np.arange(6), 0) == [Validated(np.inf, 0.0)]


def test_cross_validation_needs_four_subsets():
    made = known(1, 5)
    with pytest.raises(ValueError, match="cross-validation needs 4 subsets or more, got 3"):
        random_ensemble(made, subsets=3, threshold="cross-validation")
    assert random_ensemble(made, subsets=4, threshold="cross-validation").details["cross_validation"]


def test_many_sources_take_a_thinned_grid():
    made = Known(np.where(np.arange(250) < 60, -1.0, 1.0))
    found = random_ensemble(made, subsets=2000, fraction=0.5, threshold="cross-validation")
    assert set(range(60)) - set(found.chosen) == set()
    assert len(found.chosen) < 65  # a hundredth of 250 to either side


def test_convergence_is_that_of_the_scores():
    made = known(4, 7)
    masks = random_subsets(made, 83, 0.5, 0)
    losses = made.estimate(masks).loss
    final = np.array([score(masks, losses, i) for i in range(7)])
    found = convergence(losses, masks)
    assert [row["subsets"] for row in found] == [10, 20, 41]
    for row in found:
        part = np.array([score(masks[: row["subsets"]], losses[: row["subsets"]], i) for i in range(7)])
        assert row["spearman"] == pytest.approx(spearmanr(part, final).statistic)
        assert row["error"] == pytest.approx(np.std(part - final) / np.std(final))
    assert found[2]["error"] < found[0]["error"]


def test_convergence_of_too_few_subsets_is_unknown():
    made = known(4, 20)
    masks = random_subsets(made, 9, 0.2, 0)
    first, *_ = convergence(made.estimate(masks).loss, masks)
    assert first == {"subsets": 1, "spearman": None, "error": None}
    assert convergence(np.ones(1), np.ones((1, 3), bool)) == []
    alike = convergence(np.ones(8), np.ones((8, 3), bool))
    assert alike == [{"subsets": count, "spearman": None, "error": None} for count in (1, 2, 4)]


def spread(made, fraction, sampling) -> tuple[float, float]:
    """Variance of T over seeds, and of T less its mean over the sources."""
    options = {"subsets": 60, "fraction": fraction, "keep": 1, "sampling": sampling}
    scores = np.array([random_ensemble(made, seed=seed, **options).scores for seed in range(60)])
    return scores.var(0).mean(), (scores - scores.mean(1, keepdims=True)).var(0).mean()


def test_balanced_scores_share_less_noise_and_rank_as_well():
    made = known(0, 12)
    (total, between), (less, as_much) = (spread(made, 0.75, sampling) for sampling in ("independent", "balanced"))
    assert less < 0.5 * total and as_much < 1.1 * between


def test_complements_cancel_what_is_even():
    """f(S) = f(complement of S): each source's score is the same then, with no noise between the sources."""
    pairs = np.triu(np.random.default_rng(0).normal(size=(8, 8)), 1)
    made = Known(-(pairs + pairs.T).sum(1) / 2, pairs, spread=0)
    assert np.ptp(random_ensemble(made, subsets=30, fraction=0.5, sampling="antithetic").scores) < 1e-12
    assert np.ptp(random_ensemble(made, subsets=30, fraction=0.5).scores) > 0.1
