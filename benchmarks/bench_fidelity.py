"""Estimate against truth in the demo: subsets of 15 of 20 groups, each really fine-tuned from θ*.

    python benchmarks/bench_fidelity.py --seeds 0 1 2 3 4 --subsets 24 --out benchmarks/results/fidelity.json

For every seed: Spearman and Pearson of f̂ and f, the relative error Σ(f̂ - f)²/Σf² raw and calibrated (each subset
predicted by the line through the others), beside that of the constant predictor, and the ensemble's AUC.
"""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import seeds
import torch

from gradex_fast import demo, metrics, pipeline
from gradex_fast.progress import Reporter


def measure(seed: int, folder: Path, subsets: int, dim: int) -> dict[str, float]:
    size = dataclasses.replace(demo.FULL, anchors=subsets, dim=dim)
    made = demo.make_demo(folder, seed, size)
    run = pipeline.run(made.recipe, until="select", reporter=Reporter(quiet=True))
    estimate, truth = run.estimator.at_ridge(run.estimator.ridge).estimate(run.truths).loss, run.truth
    noisy = np.array([label == "noisy" for label in made.labels])
    return {
        "seed": seed,
        "meta_loss": run.workspace.done("meta")["validation_loss"],
        "mean_truth": float(truth.mean()),
        **metrics.agreement(estimate, truth),
        "auc": metrics.auc(run.selection.scores, noisy),
        "kept_clean": int(np.sum(~noisy[list(run.selection.chosen)])),
        "kept_noisy": int(np.sum(noisy[list(run.selection.chosen)])),
    }


def main() -> None:
    parser = seeds.options(__doc__, range(5))
    parser.add_argument("--subsets", type=int, default=24)
    parser.add_argument("--dim", type=int, default=demo.FULL.dim)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = seeds.measure_each(options.seeds, partial(measure, subsets=options.subsets, dim=options.dim))
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "seed"}
    print("mean", json.dumps(mean))
    seeds.write(options.out, {"mean": mean, "seeds": rows})


if __name__ == "__main__":
    main()
