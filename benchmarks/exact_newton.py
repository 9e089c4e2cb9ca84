"""What the solver is held to: float64 Newton, one subset at a time, gradient ≤ 1e-12."""

from __future__ import annotations

import numpy as np

from gradex_fast.bench.problems import Problem
from gradex_fast.reference import solve as reference

GRADIENT = 1e-12


def newton(features: np.ndarray, margins: np.ndarray, l2: float, start: np.ndarray) -> tuple[np.ndarray, float, float]:
    """argmin F by damped Newton steps from `start`, the loss there and |F'| there.

    features float64 [r, d], margins float64 [r], start [d]. Where it starts costs or saves steps and changes nothing
    else: F is strictly convex and the steps go on until |F'| ≤ 1e-12.
    """
    problem = features, margins, np.ones(len(margins)), l2
    x = np.array(start, np.float64)
    for _ in range(100):
        slope = reference.gradient(x, *problem)
        if np.linalg.norm(slope) <= GRADIENT:
            break
        x = x + _damped(x, -np.linalg.solve(reference.hessian(x, *problem), slope), slope, problem)
    return x, reference.objective(x, *problem), float(np.linalg.norm(reference.gradient(x, *problem)))


def suboptimality(x: np.ndarray, features: np.ndarray, margins: np.ndarray, l2: float) -> float:
    """(F(x) - F*) / F*."""
    features, margins = features.astype(np.float64), margins.astype(np.float64)
    _, best, _ = newton(features, margins, l2, x)
    return float(reference.objective(x, features, margins, np.ones(len(margins)), l2) / best - 1)


def accuracy(
    problem: Problem, subsets: np.ndarray, l2: float, found: np.ndarray, estimates: np.ndarray, count: int
) -> dict[str, float]:
    """How far x and f̂ are from exact on `count` of the m subsets, evenly spread.

    Args:
        subsets: bool [m, n]. found: [m, d], x_S. estimates: [m], f̂(S).

    Returns:
        suboptimality: the greatest. estimate_error: root mean square error of f̂ over its standard deviation over all
        m subsets. reference_gradient: the greatest |F'| that Newton left.
    """
    relative, error, left = [], [], []
    for index in np.linspace(0, len(subsets) - 1, min(count, len(subsets))).astype(int):
        features, margins = problem.rows(subsets[index])
        features, margins = features.astype(np.float64), margins.astype(np.float64)
        x, best, gradient = newton(features, margins, l2, found[index])
        loss = reference.objective(found[index], features, margins, np.ones(len(margins)), l2)
        relative.append(loss / best - 1)
        error.append(estimates[index] - validation_loss(problem, x))
        left.append(gradient)
    spread = float(np.std(estimates))
    return {
        "checked": len(error),
        "suboptimality": float(max(relative)),
        "estimate_error": float(np.sqrt(np.mean(np.square(error))) / spread),
        "estimate_deviation": spread,
        "reference_gradient": max(left),
    }


def validation_loss(problem: Problem, x: np.ndarray) -> float:
    """f̂ at x [d]: mean over v of softplus(-(h_v + g_v·x))."""
    return float(np.logaddexp(0, -(problem.valid_margins + problem.valid_features.astype(np.float64) @ x)).mean())


def _damped(x: np.ndarray, step: np.ndarray, slope: np.ndarray, problem: tuple) -> np.ndarray:
    """The step, halved until F falls by 1e-4 of what its slope promises, but for F's rounding."""
    value = reference.objective(x, *problem)
    for _ in range(60):
        if reference.objective(x + step, *problem) <= value + 1e-4 * (slope @ step) + 4 * reference.EPS * value:
            break
        step = step / 2
    return step
