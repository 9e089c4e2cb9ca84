"""m logistic regressions over subsets of sources: SubsetLogisticRegression at once, scikit-learn one after another.

    python benchmarks/bench_sklearn.py [--rows 12800] [--dim 100] [--sources 100] [--subsets 200] [--json FILE]

Noisy labels of a linear rule, a source is a run of rows, a subset has each source with probability 0.7. Both are timed
from X, y to coefficients, ours with the losses as well and scikit-learn's with the gather of a subset's rows, at its
default tolerance and at a tighter one. `excess` is the greatest distance of the objective from the least that any of
the three found, relative to it. OPENBLAS_NUM_THREADS sets scikit-learn's threads, --threads ours.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from gradex_fast import SubsetLogisticRegression

Solutions = list[tuple[np.ndarray, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"rows": 12_800, "dim": 100, "sources": 100, "subsets": 200, "threads": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--C", type=float, nargs="+", default=[1e-3, 1.0, 100.0])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [{"C": C, **measure(options, C)} for C in options.C]
    for row in rows:
        print(json.dumps(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"options": vars(options) | {"json": None}, "rows": rows}, indent=1) + "\n")


def measure(options: argparse.Namespace, C: float) -> dict[str, dict[str, float]]:
    """Seconds and excess by way."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((options.rows, options.dim))
    signal = x @ rng.standard_normal(options.dim) * 2 / np.sqrt(options.dim) + 0.5
    y = (rng.random(options.rows) < 1 / (1 + np.exp(-signal))).astype(int)
    groups = np.arange(options.rows) * options.sources // options.rows
    subsets = rng.random((options.subsets, options.sources)) < 0.7
    rows = [np.flatnonzero(subset[groups]) for subset in subsets]

    def ours() -> Solutions:
        model = SubsetLogisticRegression(C, n_jobs=options.threads).fit(x, y, groups=groups, subsets=subsets)
        return list(zip(model.coefs_, model.intercepts_, strict=True))

    def theirs(tol: float) -> Solutions:
        models = (LogisticRegression(C=C, tol=tol, max_iter=10_000).fit(x[inside], y[inside]) for inside in rows)
        return [(model.coef_[0], model.intercept_[0]) for model in models]

    ways = {"at once": ours, "scikit-learn": lambda: theirs(1e-4), "scikit-learn, tol 1e-6": lambda: theirs(1e-6)}
    timed = {name: _timed(way) for name, way in ways.items()}
    losses = {
        name: [_objective(*v, x[i], y[i], C) for v, i in zip(found, rows, strict=True)]
        for name, (_, found) in timed.items()
    }
    least = np.min(list(losses.values()), axis=0)
    return {
        name: {"seconds": round(seconds, 4), "excess": float(np.max(np.array(losses[name]) / least - 1))}
        for name, (seconds, _) in timed.items()
    }


def _timed(way: Callable[[], Solutions]) -> tuple[float, Solutions]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a solve that does not converge is not to be timed
        start = time.perf_counter()
        found = way()
        return time.perf_counter() - start, found


def _objective(w: np.ndarray, b: float, x: np.ndarray, y: np.ndarray, C: float) -> float:
    return C * np.logaddexp(0, (1 - 2 * y) * (x @ w + b)).sum() + w @ w / 2


if __name__ == "__main__":
    main()
