"""The demo's selection over many seeds: the ensemble's AUC at the default ridge, and what each method keeps.

python benchmarks/bench_demo_seeds.py --seeds 0 1 2 3 4 5 6 7 8 9 --out benchmarks/results/demo_seeds.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from gradex_fast import demo, metrics, pipeline
from gradex_fast.cli import calm_libraries
from gradex_fast.progress import Reporter


def measure(seed: int, folder: Path) -> dict[str, float]:
    made = demo.make_demo(folder, seed, dataclasses.replace(demo.FULL, anchors=0))
    run = pipeline.run(made.recipe, until="select", reporter=Reporter(quiet=True))
    noisy = np.array([label == "noisy" for label in made.labels])
    row = {"seed": seed, "auc": metrics.auc(run.selection.scores, noisy)}
    for method, found in {"ensemble": run.selection, **run.others}.items():
        chosen = list(found.chosen)
        row |= {f"{method}_clean": int((~noisy[chosen]).sum()), f"{method}_noisy": int(noisy[chosen].sum())}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    calm_libraries()
    torch.set_num_threads(1)
    rows = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(seed, Path(folder)))
        print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
