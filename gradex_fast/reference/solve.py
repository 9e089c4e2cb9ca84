"""The specification of the subset solver: a ridge-penalised logistic regression per subset of rows.

With z_i = h_i + g_i . x, softplus(u) = log(1 + e^u) and sigmoid(u) = 1 / (1 + e^-u) (DESIGN §2):

    F(x)   = sum_i w_i softplus(-z_i) / W + l2/2 |x|^2
    F'(x)  = -sum_i w_i sigmoid(-z_i) g_i / W + l2 x
    F''(x) = sum_i w_i sigmoid(z_i) sigmoid(-z_i) g_i g_i^T / W + l2 I

W, the divisor, is the sum of the subset's own weights, or one number for all subsets.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
EPS = np.finfo(np.float64).eps


def sigmoid(u: Array) -> Array:
    """1 / (1 + e^-u) from e^-|u|, which never overflows."""
    e = np.exp(-np.abs(u))
    return np.where(u > 0, 1.0, e) / (1.0 + e)


def objective(
    x: Array, features: Array, margins: Array, weights: Array, l2: float, divisor: float | None = None
) -> float:
    """F(x) = sum_i w_i softplus(-(h_i + g_i . x)) / W + l2/2 |x|^2.

    x [d], features g [N, d], margins h [N], weights w [N] with a positive sum.
    """
    losses = np.logaddexp(0.0, -(margins + features @ x))
    return float(weights @ losses / (divisor or weights.sum()) + l2 / 2 * x @ x)


def gradient(
    x: Array, features: Array, margins: Array, weights: Array, l2: float, divisor: float | None = None
) -> Array:
    """F'(x) = -sum_i w_i sigmoid(-(h_i + g_i . x)) g_i / W + l2 x.  [d]"""
    residuals = weights * sigmoid(-(margins + features @ x))
    return -(residuals @ features) / (divisor or weights.sum()) + l2 * x


def hessian(
    x: Array, features: Array, margins: Array, weights: Array, l2: float, divisor: float | None = None
) -> Array:
    """F''(x) = sum_i w_i sigmoid(z_i) sigmoid(-z_i) g_i g_i^T / W + l2 I.  [d, d]"""
    z = margins + features @ x
    curvatures = weights * sigmoid(z) * sigmoid(-z)
    return (features.T * curvatures) @ features / (divisor or weights.sum()) + l2 * np.eye(len(x))


def minimize(
    features: Array,
    margins: Array,
    weights: Array,
    l2: float,
    divisor: float | None = None,
    *,
    tol: float = 1e-12,
    max_steps: int = 500,
) -> Array:
    """argmin F by damped Newton steps from 0 to |F'(x)| <= tol |F'(0)|, or until F stops falling.

    The damping is a backtracking line search: halve the step until F falls by 1e-4 of what its
    slope promises (Nocedal & Wright, algorithm 3.1), but for the rounding error of F.
    """
    problem = (features, margins, weights, l2, divisor)
    x = np.zeros(features.shape[1])
    target = tol * np.linalg.norm(gradient(x, *problem))
    for _ in range(max_steps):
        slope = gradient(x, *problem)
        if np.linalg.norm(slope) <= target:
            break
        step = -np.linalg.lstsq(hessian(x, *problem), slope)[0]
        length = _backtrack(x, step, slope, problem)
        if length == 0.0:
            break
        x = x + length * step
    return x


def _backtrack(x: Array, step: Array, slope: Array, problem: tuple) -> float:
    value = objective(x, *problem)
    length = 1.0
    while length > 1e-20:
        promised = value + 1e-4 * length * (slope @ step)
        if objective(x + length * step, *problem) <= promised + 4 * EPS * value:
            return length
        length /= 2
    return 0.0


def solve(
    features: ArrayLike,
    margins: ArrayLike,
    group_ptr: ArrayLike,
    subsets: ArrayLike,
    *,
    l2: float,
    weights: ArrayLike | None = None,
    divisor: float | None = None,
    tol: float = 1e-12,
) -> tuple[Array, Array]:
    """x_S = argmin F_S and F_S(x_S), with F_S = F over the rows of the groups in S.

    features [N, d] sorted by group, margins [N], group_ptr [n + 1] (group t holds the rows
    group_ptr[t] to group_ptr[t + 1] - 1), subsets bool [m, n], weights [N] >= 0 or None (all one);
    everything finite. Returns x [m, d] and loss [m]; both 0 for a subset without rows or weight.
    """
    features = np.asarray(features, dtype=np.float64)
    margins = np.asarray(margins, dtype=np.float64)
    weights = np.ones(len(margins)) if weights is None else np.asarray(weights, dtype=np.float64)
    group_of_row = np.repeat(np.arange(len(group_ptr) - 1), np.diff(group_ptr))
    subsets = np.asarray(subsets, dtype=bool)
    x, loss = np.zeros((len(subsets), features.shape[1])), np.zeros(len(subsets))
    for s, subset in enumerate(subsets):
        rows = subset[group_of_row]
        if weights[rows].sum() > 0:
            problem = features[rows], margins[rows], weights[rows], l2, divisor
            x[s] = minimize(*problem, tol=tol)
            loss[s] = objective(x[s], *problem)
    return x, loss
