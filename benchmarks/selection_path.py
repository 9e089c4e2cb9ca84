"""Forward selection on the problems of `gradex_fast.bench.problems`, timed; its path against exact search."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import exact_newton
import numpy as np
import process_memory
import solve_report

import gradex_fast
from gradex_fast.bench.problems import Problem

SELECTIONS = {"small": ("whole",), "medium": ("whole",), "large": ("whole", "peak")}
"""Over all n steps, or until f̂ no longer improves."""

CHECKED_STEPS, CHECKED_SOURCES = 25, 100
"""Exact search compares so many steps, and only where there are few sources: it takes a Newton solve a candidate."""


def measure(size: str, until: str, problem: Problem, l2: float, options) -> dict[str, Any]:
    """One row; the whole path of a thousand sources is walked once, the others `options.repeats` times."""
    sources = len(problem.group_ptr) - 1
    estimator = make_estimator(problem, l2, options.threads)
    before, spent = process_memory.baseline(), []
    for repeat in range(1 if until == "whole" and sources > CHECKED_SOURCES else options.repeats):
        fresh = estimator.at_ridge(estimator.ridge * (1 + 1e-9 * repeat))
        start = time.perf_counter()
        path = gradex_fast.forward_selection(fresh, keep=sources if until == "whole" else None).path
        spent.append(time.perf_counter() - start)
    peak = process_memory.peak()
    evaluations = count_evaluations(len(path), sources, until)
    target = solve_report.must_reach(solve_report.SECONDS, f"{size} {until}", "mid")
    row = {
        "size": size,
        "until": until,
        "chosen": len(path),
        "evaluations": evaluations,
        "median s": float(np.median(spent)),
        "minimum s": min(spent),
        "must reach s": target,
        "µs each": 1e6 * float(np.median(spent)) / evaluations,
        "extra MiB": (peak - before) / 2**20,
        "≤ 256 MiB": peak - before <= solve_report.EXTRA_MIB * 2**20,
        "reached": None if target is None else bool(np.median(spent) <= target),
    }
    if options.check_path and sources <= CHECKED_SOURCES:
        exact = compare_path(problem, l2, [step["source"] for step in path[:CHECKED_STEPS]])
        row |= {f"path {key}": value for key, value in exact.items()}
    return row


def count_evaluations(chosen: int, sources: int, until: str) -> int:
    """Subsets tried: all candidates of every step, and at a peak those of the step that did not improve."""
    steps = min(chosen + (until == "peak"), sources)
    return steps * sources - steps * (steps - 1) // 2


def make_estimator(problem: Problem, l2: float, threads: int) -> gradex_fast.SubsetEstimator:
    """The estimator whose ridge means this λ."""
    train = _sketches(problem.features, problem.margins)
    valid = _sketches(problem.valid_features, problem.valid_margins)
    groups = np.repeat(np.arange(len(problem.group_ptr) - 1), np.diff(problem.group_ptr))
    plain = gradex_fast.SubsetEstimator(train, groups, valid, ridge=1.0, threads=threads)
    return plain.at_ridge(l2 / plain.l2)


def compare_path(problem: Problem, l2: float, path: Sequence[int]) -> dict[str, float | bool]:
    """Whether `path`, the sources in the order chosen, is what greedy search with exact solves chooses.

    Returns:
        steps: how many were compared. same: all equal. gap: the least difference in f̂ between a step's best candidate
        and its second.
    """
    subset = np.zeros(len(problem.group_ptr) - 1, bool)
    x, gaps, same = np.zeros(problem.features.shape[1]), [], True
    for chosen in path:
        candidates = np.flatnonzero(~subset)
        solutions = [_with(problem, subset, source, l2, x) for source in candidates]
        losses = np.array([exact_newton.validation_loss(problem, solution) for solution in solutions])
        ranked = np.argsort(losses)
        gaps += np.diff(losses[ranked[:2]]).tolist()
        same &= bool(candidates[ranked[0]] == chosen)
        x = solutions[int(np.flatnonzero(candidates == chosen)[0])]
        subset[chosen] = True
    return {"steps": len(path), "same": same, "gap": min(gaps)}


def _with(problem: Problem, subset: np.ndarray, source: int, l2: float, start: np.ndarray) -> np.ndarray:
    trial = subset.copy()
    trial[source] = True
    features, margins = problem.rows(trial)
    return exact_newton.newton(features.astype(np.float64), margins, l2, start)[0]


def _sketches(features: np.ndarray, margins: np.ndarray) -> gradex_fast.Sketches:
    return gradex_fast.Sketches(features, margins, np.logaddexp(0, -margins))
