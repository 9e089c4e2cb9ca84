"""Raw rows as sources in the demo: its rows in one heap, cut into clusters by their sketches, noisy ones to be found.

    python benchmarks/bench_clusters.py --seeds 0 1 2 --out benchmarks/results/clusters.json

For every method and seed: `purity`, the share of rows that are of their cluster's commoner kind (noisy or clean; half
of the rows are noisy); `auc` of telling noisy rows from clean ones by their cluster's ensemble score; the rows kept by
kind.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import seeds
import torch

from gradex_fast import demo, metrics, pipeline
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe

METHODS = ("spectral", "agglomerative")


def measure(seed: int, folder: Path, count: int) -> dict[str, dict[str, float]]:
    made = demo.make_demo(folder, seed)
    return {"seed": seed, **{method: _measure(made, {"count": count, "method": method}) for method in METHODS}}


def _measure(made: demo.Demo, clusters: dict) -> dict[str, float]:
    tree = made.recipe.model_dump(mode="json") | {"clusters": clusters}
    tree["estimate"] = {"anchors": 0}
    run = pipeline.run(Recipe.build(tree), until="select", reporter=Reporter(quiet=True))
    label = dict(zip((source.name for source in run.whole), made.labels, strict=True))
    noisy = [np.array([label[e.id.split("/")[0]] == "noisy" for e in s.examples]) for s in run.corpus.sources]
    rows, kept = np.concatenate(noisy), np.concatenate([noisy[index] for index in run.selection.chosen])
    scores = np.repeat(run.selection.scores[: len(noisy)], [len(one) for one in noisy])
    return {
        "clusters": len(noisy),
        "largest": max(map(len, noisy)),
        "purity": sum(max(one.sum(), (~one).sum()) for one in noisy) / len(rows),
        "auc": metrics.auc(scores, rows),
        "kept_clean": int((~kept).sum()),
        "kept_noisy": int(kept.sum()),
    }


def main() -> None:
    parser = seeds.options(__doc__, range(3))
    parser.add_argument("--count", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = seeds.measure_each(options.seeds, partial(measure, count=options.count))
    mean = {m: {key: float(np.mean([row[m][key] for row in rows])) for key in rows[0][m]} for m in METHODS}
    print("mean", json.dumps(mean))
    seeds.write(options.out, {"mean": mean, "seeds": rows})


if __name__ == "__main__":
    main()
