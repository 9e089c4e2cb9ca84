"""Are P's entries what they are said to be? Moments and correlations of 10⁸ entries, in standard errors.

    python benchmarks/check_moments.py --entries 100000000 --out benchmarks/results/moments.json

The entries come out of the kernels, as lifts of unit vectors (of the reference where a distribution has no compiled
kernel). A row of P is one element; x is an entry times √variance⁻¹. TensorSketch is checked on either side alone: a
parameter of one line has only input hashes, one of width 1 only output hashes, and its rows are independent.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gradex_fast import kernels
from gradex_fast.reference.projection import scale

KINDS = ("gaussian", "rademacher", "tensorsketch inputs", "tensorsketch outputs")
ROWS, LIMIT = 4096, 4.0


def blocks(kind: str, entries: int, dim: int, seed: int) -> Iterator[np.ndarray]:
    """x [rows, dim], float64, of consecutive elements."""
    distribution, _, side = kind.partition(" ")
    unit = np.eye(dim, dtype=np.float32)
    factor = math.sqrt(dim) if distribution == "tensorsketch" else 1 / scale(distribution, dim)
    for start in range(0, max(ROWS, entries // dim), ROWS):
        plan = {"name": "moments", "seed": seed, "distribution": distribution, "offset": start}
        if side == "inputs":
            plan |= {"name": f"moments/{start}", "offset": 0, "width": ROWS}
        elif side == "outputs":
            plan["width"] = 1
        try:
            lifted = kernels.lift(unit, ROWS, **plan)
        except NotImplementedError:
            lifted = kernels.lift(unit, ROWS, backend="reference", **plan)
        yield lifted.T.astype(np.float64) * factor


class Sums:
    """Sums over rows of what `statistics` looks at."""

    def __init__(self, dim: int) -> None:
        self.rows, self.steps, self.fourth, self.neighbours, self.sizes = 0, 0, 0.0, 0.0, 0.0
        self.first, self.products = np.zeros(dim), np.zeros((dim, dim))

    def add(self, x: np.ndarray) -> None:
        self.rows, self.steps = self.rows + len(x), self.steps + len(x) - 1
        self.fourth += float((x**4).sum())
        self.first += x.sum(0)
        self.products += x.T @ x
        self.neighbours += float((x[1:] * x[:-1]).sum())
        self.sizes += float((x[1:] ** 2 * x[:-1] ** 2).sum())


def statistics(kind: str, sums: Sums) -> dict[str, dict[str, float]]:
    """name -> found, expected, and how many standard errors lie between.

    A "mean z²" is that of the columns' (or pairs') own deviations in standard errors.
    """
    dim, rows = len(sums.first), sums.rows
    count, steps, tensor = rows * dim, sums.steps * dim, kind.startswith("tensorsketch")
    # E x⁴, and the variances of x² and x⁴
    fourth, var_square, var_fourth = {"gaussian": (3, 2, 96), "rademacher": (1, 0, 0)}.get(kind, (dim, 0, 0))
    squares = np.diag(sums.products)
    found = {
        "mean": _mean(sums.first.sum() / count, 0, 1 / count),
        "variance": _mean(squares.sum() / count, 1, var_square / count),
        "kurtosis": _mean(sums.fourth / count, fourth, var_fourth / count),
        "neighbouring elements": _mean(sums.neighbours / steps, 0, 1 / steps),
        "means of columns, mean z²": _mean_square(sums.first**2 / rows),
    }
    # Σ_j x_jk² of a column has variance 2 rows for normals; for TensorSketch it is dim times a bucket's count.
    if spread := dim - 1 if tensor else var_square:
        found["variances of columns, mean z²"] = _mean_square((squares - rows) ** 2 / (rows * spread))
    if not tensor:  # in a row of TensorSketch no two columns are ever both there
        found["correlations of columns, mean z²"] = _mean_square(sums.products[np.triu_indices(dim, 1)] ** 2 / rows)
    # x_j² x_j₊₁² has variance μ₄² - 1 and covariance μ₄ - 1 with the next; for TensorSketch a step of dim entries is
    # dim² where two buckets agree, and 0 elsewhere.
    spread = (dim - 1) * dim if tensor else fourth**2 - 1 + 2 * (fourth - 1)
    found["sizes of neighbours"] = _mean(sums.sizes / steps, 1, spread / steps)
    return found


def _mean(found: float, expected: float, variance: float) -> dict[str, float]:
    """`variance` 0: exact by construction, but for the float32 rounding of a lift's √dim."""
    off = abs(found - expected)
    exact = 0.0 if off <= 1e-6 * abs(expected) else math.inf
    return {"found": float(found), "expected": expected, "off": off / math.sqrt(variance) if variance else exact}


def _mean_square(squares: np.ndarray) -> dict[str, float]:
    """Of normals: χ² / n. Its tails are not a normal's, its cube root's nearly are (Wilson and Hilferty 1931)."""
    spread = 2 / (9 * squares.size)
    off = abs(squares.mean() ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return {"found": float(squares.mean()), "expected": 1.0, "off": float(off)}


def measure(kind: str, entries: int, dim: int, seed: int) -> dict[str, dict[str, float]]:
    sums = Sums(dim)
    for x in blocks(kind, entries, dim, seed):
        sums.add(x)
    return statistics(kind, sums)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=10**8)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = {}
    for kind in KINDS:
        found[kind] = measure(kind, options.entries, options.dim, options.seed)
        print(f"\n{kind}\n| | found | expected | standard errors off |\n|---|---|---|---|")
        for name, row in found[kind].items():
            print(f"| {name} | {row['found']:.6f} | {row['expected']:g} | {row['off']:.2f} |", flush=True)
    worst = max(row["off"] for rows in found.values() for row in rows.values())
    if options.out:
        settings = {"entries": options.entries, "dim": options.dim, "seed": options.seed}
        options.out.write_text(json.dumps({**settings, "largest_deviation": worst, "found": found}, indent=2) + "\n")
    raise SystemExit(None if worst <= LIMIT else f"{worst:.1f} standard errors are more than {LIMIT:g}")


if __name__ == "__main__":
    main()
