"""What each part of the subset solver buys: the same batches without it.

    python benchmarks/ablate_solve.py --out benchmarks/results/solve_ablation.json

Regime mid, f̂ not included, median of the repeats. Where a part's absence makes a batch of 1,000 slow, fewer subsets are
solved, and the table says how many; the start that they share then weighs more. What cannot be solved together is
solved one by one in float64: `float64` counts it. A Markdown table goes beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import exact_newton
import numpy as np
import solve_report

from gradex_fast import kernels, native
from gradex_fast.bench.problems import SIZES, Problem, make_problem, penalties, random_subsets

SHARED_START, SUBSET_HESSIANS, UNION_HESSIAN, BATCHES = 1, 2, 4, 8
"""`SolvePart` of csrc/solve.h."""

VARIANTS = {
    "everything": ("avx512bf16", 0),
    "no shared start: from x = 0": ("avx512bf16", SHARED_START),
    "no subsets' Hessians: the union's": ("avx512bf16", SUBSET_HESSIANS),
    "no Hessians: a multiple of the identity": ("avx512bf16", SUBSET_HESSIANS | UNION_HESSIAN),
    "no batches: one subset at a time": ("avx512bf16", BATCHES),
    "no bfloat16: float32 with AVX-512": ("avx512", 0),
    "AVX2": ("avx2", 0),
    "baseline: SSE2": ("baseline", 0),
}

LIMIT = 15.0
"""Seconds that one batch may take."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["medium", "large", "xl"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for size in options.sizes:
        problem = make_problem(SIZES[size])
        for name, (instruction_set, without) in VARIANTS.items():
            if instruction_set not in native.instruction_sets():
                continue
            with native.using_instruction_set(instruction_set):
                rows.append(measure(size, problem, without, options))
            rows[-1] = {"size": size, "variant": name} | rows[-1]
            solve_report.print_row(rows[-1])
    if options.out:
        report = solve_report.provenance() | vars(options) | {"out": str(options.out), "tables": {"Without": rows}}
        options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        options.out.with_suffix(".md").write_text(solve_report.markdown(report))


def measure(size: str, problem: Problem, without: int, options: argparse.Namespace) -> dict[str, Any]:
    """One variant: as many subsets as the limit allows, timed, then a few of them checked against float64 Newton."""
    solver = kernels.SubsetSolver(problem.features, problem.margins, problem.group_ptr, threads=options.threads)
    l2, subsets = penalties(problem)["mid"], random_subsets(SIZES[size].sources, 1000)
    _, _, trial = solve(solver, subsets[:16], l2, without, options.threads)
    count = 1000 if trial / 16 * 1000 < LIMIT else max(16, int(16 * LIMIT / trial))
    spent = []
    for repeat in range(options.repeats if count == 1000 else 1):
        penalty = l2 * (1 + 1e-9 * repeat)
        x, exact, seconds = solve(solver, subsets[:count], penalty, without, options.threads)
        spent.append(1e6 * seconds / count)
    estimates = kernels.mean_losses(x, problem.valid_features, problem.valid_margins)
    found = exact_newton.accuracy(problem, subsets[:count], penalty, x, estimates, 6)
    return {"subsets": count, "median µs": float(np.median(spent)), "float64": exact} | found


def solve(solver, subsets: np.ndarray, l2: float, without: int, threads: int) -> tuple[np.ndarray, int, float]:
    """x [m, d], how many needed float64, seconds."""
    m = len(subsets)
    outputs = np.zeros((m, solver.dim)), np.zeros(m, np.int32), np.zeros(m, np.int32)
    limits = {"l2": l2, "tol": 1e-6, "max_iterations": 500, "threads": threads}
    start = time.perf_counter()
    exact = solver._solver.solve(outputs, subsets, progress=None, without=without, **limits)
    return outputs[0], exact, time.perf_counter() - start


if __name__ == "__main__":
    main()
