"""What a diagnosis has cost, whichever process carried it out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from pathlib import Path

from gradex_fast.accounts import SketchAccount, shared_costs
from gradex_fast.costs import Cost, together
from gradex_fast.diagnose import ablations, costs, curvature, rrss, variants
from gradex_fast.diagnose.directions import step_file
from gradex_fast.diagnose.part import Part, Row
from gradex_fast.diagnose.truth import Truth, chosen, recipe_of
from gradex_fast.files import read_json
from gradex_fast.finetuning import fine_tuning_cost

SHOWN = ("forward_rows", "backward_rows", "flops", "seconds")


def account(truth: Truth, parts: Collection[str]) -> Part:
    """The run itself and every kind of work of these parts; what two parts share is counted once."""
    found = {"meta-training, sketches, anchors": together(shared_costs(truth.run).values())}
    found |= dict(_work(truth, parts))
    found["together"] = together(found.values())
    rows = [_row(name, cost) for name, cost in found.items()]
    return Part(rows, rows)


def _row(name: str, cost: Cost) -> Row:
    values = cost.values()
    return {"work": name, **{key: values[key] for key in SHOWN}}


def _work(truth: Truth, parts: Collection[str]) -> Iterator[tuple[str, Cost]]:
    if set(parts) - {"rrss"}:
        yield from _fine_tunings(truth)
    if "rrss" in parts:
        yield from _expansion(truth)
    for folder, (dim, margin) in _sketched(truth, parts).items():
        other = variants.variant(truth.run, dim, margin)
        yield f"sketches of d = {dim}, {margin} margin", SketchAccount(other, folder).cost()
    if "curvature" in parts:
        yield "sketches of tokens", SketchAccount(curvature.by_token(truth.run), curvature.FOLDER).cost()


def _fine_tunings(truth: Truth) -> Iterator[tuple[str, Cost]]:
    """But for the run's own anchors."""
    run, own = truth.run, 0 if truth.run.truths is None else len(truth.run.truths)
    anchors = {f"anchor {index + 1}" for index in range(own)}
    pairs = [pair for pair in zip(truth.names, truth.subsets, strict=True) if pair[0] not in anchors]
    found = [
        fine_tuning_cost(run, run.examples(chosen(run, subset)), recipe_of(run), run.workspace.done(name))
        for name, subset in pairs
    ]
    yield f"{len(found)} fine-tunings from θ*", together(found)


def _expansion(truth: Truth) -> Iterator[tuple[str, Cost]]:
    run, asked = truth.run, truth.run.recipe.diagnose
    steps = [
        run.passes.training(run.examples(chosen(run, subset)), recipe_of(run)).taking(
            _seconds(step_file(run, subset).with_suffix(".json"))
        )
        for subset in truth.subsets[truth.random][: asked.directions]
    ]
    yield f"{len(steps)} fine-tunings to follow", together(steps)
    rows = rrss.sampled(run, asked.rows)[0]
    passes = run.passes.forward_backward(rows) + run.passes.forward(rows).times(rrss.passes(run))
    yield "expansion", passes.taking(_seconds(run.path / rrss.EXPANDED))


def _sketched(truth: Truth, parts: Collection[str]) -> dict[str, tuple[int, str]]:
    """Dimension and margin of the sketches that were made for these parts alone, by folder."""
    own = truth.run.recipe.sketch
    margins = {variants.folder(truth.run, own.dim, each): each for each in ablations.margins(truth)}
    wanted = [pair for part, each in costs.folders(truth).items() if part in parts for pair in each.items()]
    return {folder: (dim, margins.get(folder, own.margin)) for folder, dim in wanted if folder != "sketches"}


def _seconds(place: Path) -> float:
    note = read_json(place)
    return note["seconds"] if note else math.nan
