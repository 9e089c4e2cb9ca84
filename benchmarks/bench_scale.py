"""How time grows with each size, one at a time: the exponent of a power law between the smallest and the largest.

    python benchmarks/bench_scale.py [--json benchmarks/results/scale.json]

Medians of three after one call for warmth. docs/pages/scale.md extrapolates from these.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from gradex_fast import kernels, native
from gradex_fast.estimate import SubsetEstimator
from gradex_fast.select import forward_selection
from gradex_fast.types import Sketches

SKETCH = {"rows": 8, "width": 512, "dim": 100}
SOLVE = {"rows": 20_000, "dim": 100, "groups": 100, "subsets": 200}
SEARCH = {"rows": 20_000, "dim": 100, "groups": 50}
TOKENS, VALIDATION = 64, 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    rows = list(measured())
    table = Table("what", "at", "seconds", "varied", "from", "to", "exponent")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    if asked.json:
        found = {**machine, "instruction_set": native.instruction_sets()[-1], "rows": rows}
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


def measured() -> Iterator[dict[str, Any]]:
    yield from varied("sketch, gaussian", SKETCH, sketch("gaussian"))
    yield from varied("sketch, tensorsketch", SKETCH, sketch("tensorsketch"))
    yield from varied("estimates of subsets", SOLVE, solve)
    yield from varied("one path of forward selection", SEARCH, search)


def varied(what: str, base: dict[str, int], work: Callable[..., Callable[[], object]]) -> Iterator[dict[str, Any]]:
    """Each size by itself at one, two and four times its base."""
    here = seconds(work(**base))
    for name, size in base.items():
        far = seconds(work(**{**base, name: 4 * size}))
        at = ", ".join(f"{key} {value:,}" for key, value in base.items())
        exponent = math.log(far / here) / math.log(4)
        yield {"what": what, "at": at, "seconds": here, "of": name, "from": size, "to": 4 * size, "exponent": exponent}


def seconds(work: Callable[[], object]) -> float:
    work()
    spent = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def sketch(distribution: str) -> Callable[..., Callable[[], object]]:
    """One layer of width² parameters."""

    def made(rows: int, width: int, dim: int) -> Callable[[], object]:
        inputs, grads = torch.randn(rows, TOKENS, width), torch.randn(rows, TOKENS, width)
        options = {"name": "layer", "seed": 0, "dim": dim, "distribution": distribution}
        return lambda: kernels.sketch(inputs, grads, **options)

    return made


def solve(rows: int, dim: int, groups: int, subsets: int) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    found, masks = estimator(rows, dim, groups), rng.random((subsets, groups)) < 0.75
    return lambda: found.estimate(masks)


def search(rows: int, dim: int, groups: int) -> Callable[[], object]:
    found = estimator(rows, dim, groups)
    return lambda: forward_selection(found, whole=True)


def estimator(rows: int, dim: int, groups: int) -> SubsetEstimator:
    rng = np.random.default_rng(0)
    return SubsetEstimator(drawn(rng, rows, dim), np.arange(rows) * groups // rows, drawn(rng, VALIDATION, dim))


def drawn(rng: np.random.Generator, rows: int, dim: int) -> Sketches:
    g = (rng.standard_normal((rows, dim), np.float32) + 0.3) / np.float32(np.sqrt(dim))
    margin = 1 + 2 * rng.standard_normal(rows)
    return Sketches(g, margin, np.logaddexp(0, -margin))


if __name__ == "__main__":
    main()
