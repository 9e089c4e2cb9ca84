"""The sentiment example over several seeds: are flipped slices told from unflipped ones, and what does the choice buy?

Prepared by ``python examples/sentiment/prepare.py --data DATA --out sentiment``; then, here,
``python benchmarks/bench_sentiment.py --folder sentiment --out benchmarks/results/sentiment.json``
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import seeds

from gradex_fast import metrics, pipeline
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe

RECIPE = Path(__file__).parents[1] / "examples" / "sentiment" / "recipe.yaml"


def measure(seed: int, output: Path, data: Path) -> dict[str, object]:
    places = (f"data.folder={data}", f"model.name={data / 'model'}", f"output={output}", f"seed={seed}")
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
    parser = seeds.options(__doc__, range(3))
    parser.add_argument("--folder", type=Path, default=Path("sentiment"), help="what prepare.py wrote")
    options = parser.parse_args()
    data = options.folder.resolve()
    seeds.write(options.out, seeds.measure_each(options.seeds, partial(measure, data=data)))


if __name__ == "__main__":
    main()
