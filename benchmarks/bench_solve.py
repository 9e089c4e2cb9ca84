"""The subset solver on the problems of `gradex_fast.bench.problems`: time, accuracy, memory, and beside public solvers.

    python benchmarks/bench_solve.py --rivals --selection --check-path --out benchmarks/results/solve.json

Every row is a whole batch of m random subsets of 0.75 n: shared start, aggregates, all solves and f̂ on 687 rows;
packing the matrix is a column of its own. Each repeat has another λ (by 1e-9 of itself), so nothing
can be remembered. A row's condition: relative suboptimality ≤ 1e-6 on every checked subset, and root mean square error
of f̂ ≤ 1 % of its standard deviation over subsets, both against float64 Newton. A Markdown table goes beside the JSON.

`pytest benchmarks/bench_solve.py` times one call of `kernels.solve`, for `results/kernels.json`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import exact_newton
import numpy as np
import process_memory
import pytest
import rival_solvers
import selection_path
import solve_report

from gradex_fast import kernels
from gradex_fast.bench.problems import REGIMES, SIZES, Problem, make_problem, penalties, random_subsets

CHECKED = {"large": 12, "xl": 6}
"""Subsets compared with Newton; 16 for other sizes."""


def run_batch(solver, problem: Problem, subsets: np.ndarray, l2: float, threads: int):
    """Solutions of the m subsets and their f̂ [m]."""
    found = solver.solve(subsets, l2=l2, tol=1e-6, threads=threads)
    return found, kernels.mean_losses(found.x, problem.valid_features, problem.valid_margins, threads=threads)


def measure(size: str, regime: str, problem: Problem, subsets: np.ndarray, l2: float, options) -> dict[str, Any]:
    """One row: a solver packed anew, one batch for memory and warmth, then the timed ones, then the check."""
    before, start = process_memory.baseline(), time.perf_counter()
    data = problem.features, problem.margins, problem.group_ptr
    solver = kernels.SubsetSolver(*data, threads=options.threads)
    packing, packed = time.perf_counter() - start, process_memory.resident()
    run_batch(solver, problem, subsets, l2, options.threads)
    peak, spent = process_memory.peak(), []
    for repeat in range(1, options.repeats + 1):
        penalty, start = l2 * (1 + 1e-9 * repeat), time.perf_counter()
        found, estimates = run_batch(solver, problem, subsets, penalty, options.threads)
        spent.append(1e6 * (time.perf_counter() - start) / len(subsets))
    exact = exact_newton.accuracy(problem, subsets, penalty, found.x, estimates, CHECKED.get(size, 16))
    status, counts = np.unique(found.status, return_counts=True)
    target = solve_report.must_reach(solve_report.MICROSECONDS, size, regime)
    return {
        "size": size,
        "regime": regime,
        "l2": l2,
        "subsets": len(subsets),
        "median µs": float(np.median(spent)),
        "minimum µs": min(spent),
        "must reach µs": target,
        "packing s": packing,
        "packed MiB": (packed - before) / 2**20,
        "extra MiB": (peak - packed) / 2**20,
        "≤ 256 MiB": peak - packed <= solve_report.EXTRA_MIB * 2**20,
        **exact,
        "iterations": int(found.iterations.max()),
        "status": {kernels.Status(int(s)).name.lower(): c / len(subsets) for s, c in zip(status, counts, strict=True)},
        "condition": keeps_condition(exact),
        "reached": None if target is None else keeps_condition(exact) and bool(np.median(spent) <= target),
    }


def keeps_condition(exact: dict[str, float]) -> bool:
    close = exact["suboptimality"] <= solve_report.SUBOPTIMALITY
    return close and exact["estimate_error"] <= solve_report.ESTIMATE_ERROR


def measure_rivals(problem: Problem, subsets: np.ndarray, l2: float, own: dict[str, Any], options) -> list[dict]:
    """The public solvers on the same problem and subsets, with how many times as long as ours they take."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        rival_solvers.save(problem, subsets[: rival_solvers.MOST], Path(folder))
        for name in rival_solvers.RIVALS:
            found = rival_solvers.measure(name, Path(folder), l2, options.seconds)
            ratio = 1e3 * found["milliseconds"] / own["median µs"]
            label = {"size": own["size"], "regime": own["regime"], "solver": name}
            rows.append(label | found | {"times ours": ratio})
            solve_report.print_row(rows[-1])
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--regimes", nargs="*", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--subsets", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rivals", nargs="*", choices=REGIMES, help="the public solvers too, in these regimes (mid)")
    parser.add_argument("--seconds", type=float, default=8, help="for each rival, size and number of threads")
    parser.add_argument("--selection", action="store_true", help="forward selection too, regime mid")
    parser.add_argument("--check-path", action="store_true", help="and its first steps against exact search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file to write; Markdown goes beside it")
    return parser.parse_args()


def main() -> None:
    options = parse()
    rivals = () if options.rivals is None else options.rivals or ("mid",)
    tables = {"Batches of subsets": [], "Public solvers": [], "Forward selection, regime mid": []}
    solves, others, selections = tables.values()
    for size in options.sizes:
        problem = make_problem(SIZES[size], options.seed)
        subsets = random_subsets(SIZES[size].sources, options.subsets)
        l2 = penalties(problem)
        for regime in options.regimes:
            solves.append(measure(size, regime, problem, subsets, l2[regime], options))
            solve_report.print_row(solves[-1])
            if regime in rivals:
                others += measure_rivals(problem, subsets, l2[regime], solves[-1], options)
        for until in selection_path.SELECTIONS.get(size, ()) if options.selection else ():
            selections.append(selection_path.measure(size, until, problem, l2["mid"], options))
            solve_report.print_row(selections[-1])
    tables["Beside public solvers, milliseconds a subset (threads)"] = solve_report.closing(solves, others)
    if options.out:
        report = solve_report.provenance() | {"threads": options.threads, "repeats": options.repeats, "tables": tables}
        options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        options.out.with_suffix(".md").write_text(solve_report.markdown(report))


@pytest.mark.parametrize("size", ["small", "medium"])
def test_solve(benchmark, size: str) -> None:
    problem = make_problem(SIZES[size])
    subsets = random_subsets(SIZES[size].sources, 100)
    benchmark.extra_info["subsets"] = len(subsets)
    data = problem.features, problem.margins, problem.group_ptr, subsets
    settings = {"l2": penalties(problem)["mid"]}
    solutions = benchmark.pedantic(kernels.solve, data, settings, rounds=3, warmup_rounds=1)
    assert (solutions.status == kernels.Status.CONVERGED).all()


if __name__ == "__main__":
    main()
