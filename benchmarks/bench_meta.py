"""What meta-training options do to the error of the estimates, in the demo: plain, sharpness-aware, none.

    python benchmarks/bench_meta.py --seeds 0 1 2 --out benchmarks/results/meta.json

For every option and seed, beside what `fidelity/addition.py` measures of subsets really fine-tuned from that θ*:
`expansion` is Σ(h' - h - g̃·x)²/Σh'² over validation rows, h' the margins at θ* moved along the x_S of ten subsets by
`DISTANCE` of ‖θ*‖ (the paper's RRSS); `unexplained` the same over Σ(h' - h)²: 1 is an expansion that says nothing.
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
from gradex_fast.evaluate import evaluate
from gradex_fast.model import load_model
from gradex_fast.modules import trainable
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe
from gradex_fast.sketch import Sketcher
from gradex_fast.state import Run

DISTANCE = 0.0015
OPTIONS = {
    "plain": {},
    "sam 0.05": {"sam": 0.05},
    "sam 0.2": {"sam": 0.2},
    "none": {"training": "none"},
}


def measure(seed: int, folder: Path, subsets: int, names: list[str]) -> dict[str, dict[str, float]]:
    return {"seed": seed, **{name: _measure(OPTIONS[name], seed, folder / name, subsets) for name in names}}


def _measure(options: dict, seed: int, folder: Path, subsets: int) -> dict[str, float]:
    made = demo.make_demo(folder, seed, dataclasses.replace(demo.FULL, anchors=subsets))
    recipe = Recipe.build({**made.recipe.model_dump(mode="json"), "meta": options})
    run = pipeline.run(recipe, until="select", reporter=Reporter(quiet=True))
    estimate = run.estimator.at_ridge(run.estimator.ridge).estimate(run.truths).loss
    noisy = np.array([label == "noisy" for label in made.labels])
    return {
        "meta_loss": run.workspace.done("meta")["validation_loss"],
        "meta_seconds": run.workspace.done("meta")["seconds"],
        "mean_truth": float(run.truth.mean()),
        **metrics.agreement(estimate, run.truth),
        "auc": metrics.auc(run.selection.scores, noisy),
        **_expansion(run),
    }


def _expansion(run: Run) -> dict[str, float]:
    model = load_model(run.recipe.model, run.recipe.seed, "cpu", trained=run.path / "meta")
    sketcher, rows = Sketcher(model, dim=run.recipe.sketch.dim, seed=run.recipe.seed), run.corpus.validation.examples
    start = {name: p.detach().clone() for name, p in trainable(model).items()}
    length = _norm(start)
    errors = []
    for x in run.selection.estimates.x[:10]:
        with sketcher.moved(x):
            far = _norm({name: p.detach() - start[name] for name, p in trainable(model).items()})
        x = x * DISTANCE * length / far
        with sketcher.moved(x):
            moved = _margin(evaluate(model, rows, pad_id=run.pad_id, batch_tokens=8192).loss)
        wrong = np.square(moved - run.validation.margin - run.validation.g @ x).sum()
        errors.append((wrong / np.square(moved).sum(), wrong / np.square(moved - run.validation.margin).sum()))
    return dict(zip(("expansion", "unexplained"), np.mean(errors, axis=0).tolist(), strict=True))


def _norm(tensors: dict[str, torch.Tensor]) -> float:
    return sum(float(tensor.double().square().sum()) for tensor in tensors.values()) ** 0.5


def _margin(loss: np.ndarray) -> np.ndarray:
    return -loss - np.log(-np.expm1(-loss))


def main() -> None:
    parser = seeds.options(__doc__, range(3))
    parser.add_argument("--subsets", type=int, default=8)
    parser.add_argument("--options", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = seeds.measure_each(options.seeds, partial(measure, subsets=options.subsets, names=options.options))
    keys = rows[0][options.options[0]]
    mean = {name: {key: float(np.mean([row[name][key] for row in rows])) for key in keys} for name in options.options}
    for name, figures in mean.items():
        print(name, json.dumps(figures))
    seeds.write(options.out, {"mean": mean, "seeds": rows})


if __name__ == "__main__":
    main()
