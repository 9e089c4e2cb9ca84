"""A store of many sketches: opening it, reading subsets of it, estimating 100 subsets; time and memory.

    python benchmarks/bench_store.py --folder EMPTY [--rows 1000000] [--dim 400] [--json results/store.json]

The folder takes twice the sketches' size and is kept. What is measured runs in a process of its own; files are in the
page cache from being written. anonymous: memory that only the process can give back; mapped: pages of the store's file,
which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from gradex_fast.estimate import SubsetEstimator
from gradex_fast.store import SketchStore
from gradex_fast.types import Sketches

GROUPS, VALIDATION, SUBSETS, READS = 1000, 1000, 100, 20
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=400)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked)))
        return
    made = make(asked)
    command = [sys.executable, __file__, "--folder", asked.folder, "--rows", str(asked.rows), "--dim", str(asked.dim)]
    said = subprocess.run([*map(str, command), "--measure"], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {"rows": asked.rows, "dim": asked.dim, "gib": 4 * asked.rows * asked.dim / GIB, **made, **json.loads(said)}
    for name, value in found.items():
        print(f"{name:<28} {value:,.3f}" if isinstance(value, float) else f"{name:<28} {value:,}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


def make(asked: argparse.Namespace) -> dict[str, float]:
    """Shards, and the matrix of them; what is there already is not made again, nor timed."""
    store, begin = opened(asked), time.monotonic()
    if not store.missing("train", asked.rows) and not store.missing("validation", VALIDATION):
        return {}
    rng = np.random.default_rng(0)
    for split, rows in (("train", asked.rows), ("validation", VALIDATION)):
        for shard in store.missing(split, rows):
            store.write(split, shard, drawn(rng, len(shard), asked.dim), [f"{row:016x}" for row in shard])
    written = time.monotonic()
    store.read("train", asked.rows)
    store.read("validation", VALIDATION)
    return {"write_seconds": written - begin, "first_open_seconds": time.monotonic() - written}


def drawn(rng: np.random.Generator, rows: int, dim: int) -> Sketches:
    g = (rng.standard_normal((rows, dim), np.float32) + 0.3) / np.float32(np.sqrt(dim))
    margin = 1 + 2 * rng.standard_normal(rows)
    return Sketches(g, margin, np.logaddexp(0, -margin))


def measure(asked: argparse.Namespace) -> dict[str, float]:
    base, found, watch = memory(), {}, Watch()
    with watch, timed(found, "open_seconds"):
        store = opened(asked)
        train, valid = store.read("train", asked.rows), store.read("validation", VALIDATION)
    found |= watch.above(base, "open")
    rng = np.random.default_rng(1)
    with watch, timed(found, "subset_read_seconds"):
        for _ in range(READS):
            group = np.sort(rng.choice(asked.rows, asked.rows // GROUPS, replace=False))
            train[group].g.sum()
    found["subset_read_seconds"] /= READS
    with watch, timed(found, "estimator_seconds"):
        groups = np.arange(asked.rows) * GROUPS // asked.rows
        estimator = SubsetEstimator(train, groups, valid, threads=torch.get_num_threads())
    with watch, timed(found, "estimate_seconds"):
        estimator.estimate(rng.random((SUBSETS, GROUPS)) < 0.75)
    return found | watch.above(base, "peak") | {"threads": torch.get_num_threads()}


def opened(asked: argparse.Namespace) -> SketchStore:
    return SketchStore(asked.folder, {"sketch.dim": asked.dim}, shard_rows=1024)


@contextmanager
def timed(found: dict[str, float], name: str):
    begin = time.monotonic()
    yield
    found[name] = time.monotonic() - begin


def memory() -> dict[str, float]:
    """GiB of this process."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {kind: int(lines[name].split()[0]) / 2**20 for kind, name in KINDS.items()}


KINDS = {"anonymous": "RssAnon", "mapped": "RssFile"}


class Watch:
    """The highest memory while open, looked at every 20 ms."""

    def __init__(self) -> None:
        self._highest = dict.fromkeys((*KINDS, "together"), 0.0)

    def __enter__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            now = memory()
            for kind, size in {**now, "together": sum(now.values())}.items():
                self._highest[kind] = max(self._highest[kind], size)
            if self._end.wait(0.02):
                return

    def above(self, base: dict[str, float], name: str) -> dict[str, float]:
        """GiB more than at `base`."""
        base = {**base, "together": sum(base.values())}
        return {f"{name}_{kind}_gib": size - base[kind] for kind, size in self._highest.items()}


if __name__ == "__main__":
    main()
