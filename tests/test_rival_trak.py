"""TRAK against its formula, and against leaving rows out of the regression that it is meant for."""

from __future__ import annotations

import numpy as np
import pytest
import runs

from gradex_fast.baselines import RIVALS
from gradex_fast.baselines.trak import attributions
from gradex_fast.types import Sketches


def sketches(rows: int, dim: int, seed: int) -> Sketches:
    draw = np.random.default_rng(seed)
    margin = draw.normal(size=rows)
    return Sketches(draw.normal(size=(rows, dim)).astype(np.float32), margin, np.logaddexp(0, -margin))


def formula(train: Sketches, target: Sketches) -> np.ndarray:
    """Mean over v of φ_vᵀ (ΦᵀΦ)⁻¹ Φᵀ Q, row by row."""
    phi = train.g.astype(np.float64)
    inverse = np.linalg.inv(sum(np.outer(row, row) for row in phi))
    p = np.exp(-train.loss)
    tau = [[v @ inverse @ phi[i] * (1 - p[i]) for i in range(len(phi))] for v in target.g.astype(np.float64)]
    return np.mean(tau, axis=0)


def test_attributions_are_the_formula():
    train, target = sketches(30, 5, 0), sketches(7, 5, 1)
    np.testing.assert_allclose(attributions(train, target), formula(train, target), rtol=1e-8)


def test_with_fewer_rows_than_columns_it_is_the_limit_of_a_small_ridge():
    train, target = sketches(4, 9, 2), sketches(3, 9, 3)
    phi = train.g.astype(np.float64)
    inverse = np.linalg.inv(phi.T @ phi + 1e-9 * np.eye(9))
    expected = phi @ inverse @ target.g.mean(0, dtype=np.float64) * (1 - np.exp(-train.loss))
    np.testing.assert_allclose(attributions(train, target), expected, rtol=1e-5)


def test_rows_that_are_not_finite_are_left_out():
    train, target = sketches(30, 5, 0), sketches(7, 5, 1)
    broken = Sketches(train.g.copy(), train.margin, train.loss)
    broken.g[3, 1] = np.nan
    others = np.arange(30) != 3
    found = attributions(broken, target)
    assert np.isnan(found[3])
    np.testing.assert_allclose(found[others], formula(train[others], target), rtol=1e-8)


def fitted(g: np.ndarray) -> np.ndarray:
    """x of least Σ log(1 + exp(-g x)) + |x|²/20, by Newton's method."""
    x = np.zeros(g.shape[1])
    for _ in range(30):
        p = 1 / (1 + np.exp(-g @ x))
        hessian = (g * (p * (1 - p))[:, None]).T @ g + 0.1 * np.eye(len(x))
        x += np.linalg.solve(hessian, g.T @ (1 - p) - 0.1 * x)
    return x


@pytest.mark.parametrize("seed", range(4))
def test_it_tells_which_rows_a_regression_would_miss(seed):
    """Margins of targets with all rows, minus those without row i: what τ_i estimates, up to a factor.

    Not exactly: the formula has ΦᵀΦ where Newton's step has Φᵀ diag(p (1 - p)) Φ (§3.2 of the paper drops it).
    """
    draw = np.random.default_rng(seed)
    g, target = draw.normal(size=(60, 4)) + 0.3, draw.normal(size=(5, 4)) + 0.3
    x = fitted(g)
    change = [np.mean(target @ (x - fitted(np.delete(g, i, axis=0)))) for i in range(len(g))]
    train = Sketches(g.astype(np.float32), g @ x, np.logaddexp(0, -g @ x))
    found = attributions(train, Sketches(target.astype(np.float32), target @ x, np.logaddexp(0, -target @ x)))
    assert np.corrcoef(found, change)[0, 1] > 0.9


@pytest.mark.parametrize("target", [True, False])
def test_scores_are_minus_the_mean_of_a_sources_rows(inputs, tmp_path, target):
    tree = runs.language_tree(inputs, tmp_path / "run", sketch={"dim": 6})
    tree["data"]["sources"][2]["limit"] = 1
    if not target:
        del tree["data"]["target"]["train"]
    run = runs.run(tree, until="sketch")
    rows = np.split(formula(run.train, run.validation)[:25], [8, 16, 17])
    found = RIVALS["trak"](run)
    np.testing.assert_allclose(found.selection.scores, [-part.mean() for part in rows], rtol=1e-4)
    assert found.selection.chosen == tuple(i for i, part in enumerate(rows) if part.mean() > 0)
    assert (found.cost.forward_rows, found.needs) == (0, ("meta", "sketch"))
