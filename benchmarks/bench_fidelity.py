"""Estimate against truth in the demo: subsets of 15 of 20 groups, each really fine-tuned from θ*.

    python benchmarks/bench_fidelity.py --seeds 0 1 2 3 4 --subsets 24 --out benchmarks/results/fidelity.json

For every seed: Spearman and Pearson of f̂ and f, the relative error Σ(f̂ - f)²/Σf² raw and calibrated (each subset
predicted by the line through the others), beside that of the constant predictor, and the ensemble's AUC.
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


def measure(seed: int, subsets: int, dim: int, folder: Path) -> dict[str, float]:
    size = dataclasses.replace(demo.FULL, anchors=subsets, dim=dim)
    made = demo.make_demo(folder, seed, size)
    run = pipeline.run(made.recipe, until="select", reporter=Reporter(quiet=True))
    estimate, truth = run.estimator.at_ridge(run.estimator.ridge).estimate(run.truths).loss, run.truth
    noisy = np.array([label == "noisy" for label in made.labels])
    return {
        "seed": seed,
        "meta_loss": run.workspace.done("meta")["validation_loss"],
        "mean_truth": float(truth.mean()),
        "spearman": metrics.spearman(estimate, truth),
        "pearson": metrics.pearson(estimate, truth),
        "relative_error": metrics.relative_error(estimate, truth),
        "calibrated_error": metrics.relative_error(metrics.leave_one_out(estimate, truth), truth),
        "constant_error": metrics.constant_error(truth),
        "auc": metrics.auc(run.selection.scores, noisy),
        "kept_clean": int(np.sum(~noisy[list(run.selection.chosen)])),
        "kept_noisy": int(np.sum(noisy[list(run.selection.chosen)])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--subsets", type=int, default=24)
    parser.add_argument("--dim", type=int, default=demo.FULL.dim)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    calm_libraries()
    torch.set_num_threads(1)
    rows = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(seed, options.subsets, options.dim, Path(folder)))
        print(json.dumps(rows[-1]), flush=True)
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "seed"}
    print("mean", json.dumps(mean))
    if options.out:
        options.out.write_text(json.dumps({"mean": mean, "seeds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
