"""The demo's selection over many seeds: the ensemble's AUC at the default ridge, and what each method keeps.

python benchmarks/bench_demo_seeds.py --seeds 0 1 2 3 4 5 6 7 8 9 --out benchmarks/results/demo_seeds.json
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import seeds
import torch

from gradex_fast import demo, metrics, pipeline
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
    options = seeds.options(__doc__, range(10)).parse_args()
    torch.set_num_threads(1)
    seeds.write(options.out, seeds.measure_each(options.seeds, measure))


if __name__ == "__main__":
    main()
