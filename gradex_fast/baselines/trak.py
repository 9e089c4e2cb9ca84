"""TRAK: attribution by the kernel of projected gradients (Park, Georgiev, Ilyas, Leclerc and Mądry, ICML 2023,
arXiv 2303.14186).

For target row v and training rows i = 1 ... N, of one model (§3.2, the estimator of one θ)

    τ(v) = φ_vᵀ (ΦᵀΦ)⁻¹ Φᵀ Q,   φ = Pᵀ ∇h, the projected gradient of the model output h; Q = diag(1 - p_i).

h = log(p/(1 - p)) is the paper's output function for classification (§3.3) and this package's margin, so φ is the run's
sketch; p = exp(-ℓ). A source's score is minus the mean over its rows and the validation rows of τ: a row that raises
the target's margin is good. The paper averages over several trained models; the run has one, θ*. With fewer rows than
columns ΦᵀΦ has no inverse, and its pseudo-inverse is taken. Q and φ fit each other for the sequence margin; with the
token margin they are the paper's formula, but not a derivative of the loss.
"""

from __future__ import annotations

import numpy as np

from gradex_fast.baselines.rival import Scored, by_source
from gradex_fast.sketch import nonfinite_rows
from gradex_fast.state import Run
from gradex_fast.types import Sketches


def trak(run: Run) -> Scored:
    """No pass of its own. By itself it keeps sources whose rows raise the target's margins on average."""
    rows = sum(len(source.examples) for source in run.corpus.sources)
    judged = np.setdiff1d(np.arange(len(run.validation)), nonfinite_rows(run.validation))
    return by_source(run, attributions(run.train, run.validation[judged])[:rows], natural=0.0)


def attributions(train: Sketches, target: Sketches) -> np.ndarray:
    """Mean over target rows of τ(v)_i: float64 [N]; NaN for rows whose sketch is not finite."""
    finite = np.setdiff1d(np.arange(len(train)), nonfinite_rows(train))
    phi = train.g[finite].astype(np.float64)
    mean = target.g.mean(0, dtype=np.float64)  # τ is linear in φ_v
    found = np.full(len(train), np.nan)
    found[finite] = phi @ (np.linalg.pinv(phi.T @ phi, hermitian=True) @ mean) * -np.expm1(-train.loss[finite])
    return found
