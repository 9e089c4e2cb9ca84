"""Workload B, real text: which of 20 sources make MiniLM better at SST-2? Half of the sentiment slices are flipped.

    python benchmarks/fidelity/sentiment.py --data DATA

DATA holds sst2, cr, subj, rte and boolq as examples/sentiment/prepare.py has them. Every seed draws its own rows: for
sources from the train splits, for validation (200) from SST-2's dev split, for test (800) from its test split.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import Case, Figures, measure_each, options, separation, spent, work
from shares import by_share
from two_searches import side_by_side

from gradex_fast import pipeline
from gradex_fast.baselines import compare
from gradex_fast.baselines.final import trained_on
from gradex_fast.diagnose import diagnose
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe
from gradex_fast.state import Run

sys.path.append(str(Path(__file__).parents[2] / "examples" / "sentiment"))
from prepare import FLIPPED, SLICES, copy_model, read, write

RIVALS = ("gradex", "all", "random", "dsir", "deft", "less")
EVEN = ("dsir", "deft", "less")
GREEDY = ("forward", "backward")
WORDS = {"text": 24, "text2": 12}
"""Longer texts are cut: real forward selection trains hundreds of models."""
ENSEMBLE = (100, 1000)
"""Subsets of a random ensemble with real fine-tuning, which is counted and not run."""


def prepare(seed: int, folder: Path, data: Path, sizes: tuple[int, int, int]) -> Case:
    rows, validation, test = sizes
    inputs, draw = folder.parent / f"{folder.name}-inputs", random.Random(f"fidelity {seed}")
    write(inputs / "sources.jsonl", sources(data, rows, draw))
    for split, name, count in (("dev", "validation", validation), ("test", "test", test)):
        write(inputs / f"{name}.jsonl", drawn(data, "sst2", split, draw)[:count])
    if not (inputs / "model").exists():  # a part of the seed that runs beside this one may have it mapped
        copy_model(inputs / "model")
    places = (f"output={folder}", f"seed={seed}", f"data.folder={inputs}", f"model.name={inputs / 'model'}")
    recipe = Recipe.load(Path(__file__).with_name("sentiment.yaml"), (*places, "device=cpu"))
    run = pipeline.run(recipe, until="select", reporter=Reporter(quiet=True))
    helps = [name.startswith(FLIPPED) and "flipped" not in name for name in run.corpus.names]
    return Case(run, ~np.array(helps))


def sources(data: Path, rows: int, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Slices of every corpus, those of sentiment also with flipped labels."""
    for corpus, count in SLICES.items():
        pool = drawn(data, corpus, "train", draw)
        for index in range(count):
            part = pool[index * rows : (index + 1) * rows]
            yield from ({**row, "source": f"{corpus}-{index}"} for row in part)
            if corpus in FLIPPED:
                yield from ({**row, "label": 1 - row["label"], "source": f"{corpus}-{index}-flipped"} for row in part)


def drawn(data: Path, corpus: str, split: str, draw: random.Random) -> list[dict[str, Any]]:
    """All rows of a split in an order drawn from the seed, their texts cut."""
    rows = list(read(data, corpus, split))
    draw.shuffle(rows)
    return [{**row, **{k: " ".join(row[k].split()[:n]) for k, n in WORDS.items() if k in row}} for row in rows]


def rivals(case: Case) -> Figures:
    """What each rival chose, what that cost, and the model finally trained on it."""
    run, names = case.run, case.run.corpus.names
    rows = compare(run, RIVALS)
    chosen = {row.name: row.outcome.selection.chosen for row in rows if row.name != "all"}
    chosen |= {"clean": tuple(np.flatnonzero(~case.bad).tolist())}
    finals = {name: {**trained_on(run, some), "chosen": [names[i] for i in some]} for name, some in chosen.items()}
    finals["all"] = {**run.workspace.done("meta"), "chosen": names}  # θ* is that very model
    told = separation([row for row in rows if row.name != "all"], case.bad)
    costs = {row.name: spent(row.whole) for row in rows}
    return {"finals": finals, "separation": told, "bad": case.bad.tolist(), "costs": costs, "ensemble": ensembles(run)}


def greedy(case: Case) -> Figures:
    """The models that greedy searches over f̂ lead to."""
    run, names = case.run, case.run.corpus.names
    chosen = {f"gradex {name}": run.others[name].chosen for name in GREEDY}
    return {"finals": {n: {**trained_on(run, some), "chosen": [names[i] for i in some]} for n, some in chosen.items()}}


def even(case: Case) -> Figures:
    """The models that rivals' scores lead to when each keeps as many sources as GRADEX, not as many as it would."""
    scored, finals = case.known["rivals"]["separation"], case.known["rivals"]["finals"]
    best = {name: np.argsort(scored[name]["scores"], kind="stable") for name in EVEN}
    count = len(finals["gradex"]["chosen"])
    return {"finals": {f"{name}, as many": trained_on(case.run, best[name][:count].tolist()) for name in EVEN}}


def ensembles(run: Run) -> dict[str, float]:
    """By count of its subsets, the work of a random ensemble with real fine-tuning."""
    whole = work(run.passes.training(run.examples(), run.recipe.train))
    one = run.recipe.select.fraction * whole + work(run.passes.forward(run.corpus.validation.examples))
    return {str(count): count * one for count in ENSEMBLE}


def real(case: Case) -> Figures:
    """Forward selection with a training from the pretrained model for every subset, and its final model."""
    found = side_by_side(case.run, "pretrained")
    names = case.run.corpus.names
    final = trained_on(case.run, [names.index(name) for name in found["real"]["chosen"]])
    return {**found, "final": final}


def rrss(case: Case) -> Figures:
    """Of the first-order expansion by relative distance."""
    return _followed(case.run.recipe)


def rrss_full(case: Case) -> Figures:
    """The same with all parameters trained, in a run of its own."""
    recipe = case.run.recipe
    model = recipe.model.model_copy(update={"adapter": "full"})
    train = recipe.train.model_copy(update={"learning_rate": 1e-4})
    sketch = recipe.sketch.model_copy(update={"distribution": "tensorsketch"})
    changes = {"output": f"{recipe.output}-full", "model": model, "train": train, "sketch": sketch}
    return _followed(recipe.model_copy(update=changes))


def _followed(recipe: Recipe) -> Figures:
    return {"rows": list(diagnose(recipe, ["rrss"], reporter=Reporter(quiet=True)).parts["rrss"].summary)}


PARTS = {
    "rivals": rivals,
    "greedy": greedy,
    "even": even,
    "shares": by_share,
    "rrss": rrss,
    "rrss_full": rrss_full,
    "forward": real,
}


def main() -> None:
    parser = options(__doc__, PARTS)
    parser.add_argument("--data", type=Path, required=True, help="folder with the five corpora")
    asked = parser.parse_args()
    sizes = (2, 4, 4) if asked.tiny else (40, 200, 800)
    measure_each("sentiment", asked, partial(prepare, data=asked.data, sizes=sizes), PARTS)


if __name__ == "__main__":
    main()
