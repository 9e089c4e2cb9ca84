"""The sentiment example over several seeds: are flipped slices told from unflipped ones, and what does the choice buy?

Prepared by ``python examples/sentiment/prepare.py --data DATA --out sentiment``; then, here,
``python benchmarks/bench_sentiment.py --folder sentiment --out benchmarks/results/sentiment.json``
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from gradex_fast import metrics, pipeline
from gradex_fast.cli import calm_libraries
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe

RECIPE = Path(__file__).parents[1] / "examples" / "sentiment" / "recipe.yaml"


def measure(folder: Path, seed: int, output: Path) -> dict[str, object]:
    places = (f"data.folder={folder}", f"model.name={folder / 'model'}", f"output={output}", f"seed={seed}")
    run = pipeline.run(Recipe.load(RECIPE, places), reporter=Reporter())
    names = run.corpus.names
    pair = np.array([name.startswith(("sst2", "cr")) for name in names])
    flipped = np.array(["flipped" in name for name in names])
    return {
        "seed": seed,
        "auc": metrics.auc(run.selection.scores[: len(names)][pair], flipped[pair]),
        "kept": [names[index] for index in run.selection.chosen],
        "final": {name: {k: v for k, v in note.items() if k != "data"} for name, note in run.final.items()},
        "seconds": run.reporter.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("sentiment"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    calm_libraries()
    rows = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as output:
            rows.append(measure(options.folder.resolve(), seed, Path(output) / "run"))
        print(json.dumps(rows[-1]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
