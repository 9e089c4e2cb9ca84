"""A linear datamodel over sources (Ilyas, Park, Engstrom, Leclerc and Mądry, ICML 2022, arXiv 2202.00622).

The loss of a model trained on S is taken for linear in the indicators of S, f(S) ≈ c + Σ_{i∈S} θ_i, and θ is fitted to
random subsets (§2). The paper has as many indicators as rows and a LASSO; here there are a few dozen sources and more
subsets than sources, so the penalty is a ridge, chosen by the leave-one-out error, which a ridge has in closed form:

    residual_j / (1 - H_jj),   H = 1/m + X (XᵀX + λ)⁻¹ Xᵀ with centred columns.

θ_i is the score: a source that lowers the loss has the lower one. Subsets of one size tell θ only up to a constant,
which the ridge sets so that Σθ = 0: below 0 means better than the average source.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gradex_fast.accounts import searched
from gradex_fast.baselines.rival import Scored
from gradex_fast.errors import GradexError
from gradex_fast.select import random_subsets
from gradex_fast.state import Run

PENALTIES = np.logspace(-6, 2, 33)
"""Of λ over the largest eigenvalue of XᵀX."""


def datamodel(
    run: Run, subsets: int | None = None, masks: np.ndarray | None = None, losses: np.ndarray | None = None
) -> Scored:
    """By itself it keeps sources with θ < 0.

    Args:
        subsets: how many are drawn for f̂, each with the first `select.fraction`; None: `select.subsets`.
        masks, losses: subsets bool [m, ≥ n] and their losses [m] in place of f̂, say of models trained for real.

    Raises:
        GradexError: fewer than three subsets.
    """
    count, recipe = len(run.corpus.sources), run.recipe.select
    before = run.estimator.tally.copy()
    if masks is None:
        fraction = float(np.atleast_1d(recipe.fraction)[0])
        masks = random_subsets(run.estimator, subsets or recipe.subsets, fraction, run.recipe.seed)
        losses = run.estimator.estimate(masks).loss
    if losses is None or len(losses) != len(masks) or len(masks) < 3:
        raise GradexError(f"a datamodel needs three subsets or more with a loss each, got {len(masks)} subsets")
    effects = fitted(masks[:, :count], losses)
    return Scored(effects, max(1, int(np.sum(effects < 0))), searched(run, before))


def fitted(masks: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """θ [n] at the penalty of least leave-one-out error."""
    return min(fits(masks, losses), key=lambda pair: pair[0])[1]


def fits(masks: np.ndarray, losses: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """For each of `PENALTIES` the mean square of the leave-one-out residuals, and θ [n].

    The error is infinite where a subset alone decides its own fit.
    """
    x, y = masks - masks.mean(0), np.asarray(losses, np.float64) - np.mean(losses)
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    squares, along = singular**2, left.T @ y
    for penalty in PENALTIES * max(squares.max(), 1e-300):
        kept = squares / (squares + penalty)
        free = 1 - 1 / len(y) - left**2 @ kept  # 1 - H_jj
        residuals = y - left @ (kept * along)
        error = float(np.square(residuals / free).mean()) if free.min() > 1e-6 else np.inf
        yield error, right.T @ (singular * along / (squares + penalty))
