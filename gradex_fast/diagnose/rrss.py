"""The part that follows the expansion away from θ*: RRSS against relative distance (Tables 1 and 4)."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from gradex_fast.diagnose.directions import directions
from gradex_fast.diagnose.expansion import errors, margins, moved, slopes
from gradex_fast.diagnose.part import Part, Row
from gradex_fast.diagnose.truth import Truth
from gradex_fast.files import write_json
from gradex_fast.model import load_model
from gradex_fast.sketch import nonfinite_rows
from gradex_fast.state import Run
from gradex_fast.types import Example

EXPANDED = "diagnosis/expanded.json"
"""Where the time is noted that following the expansion took."""

FIGURES = ("distance", "rrss", "rrss_sketched", "rrss_constant", "rrss_rows", "rrss_loss")


def follow(truth: Truth) -> Part:
    """Every direction to every distance, and to its own end; the summary is the mean over the directions of a kind.

    The model is float32 here: in half precision a step of 0.1 % would be rounded away.
    """
    run, asked = truth.run, truth.run.recipe.diagnose
    model = load_model(run.recipe.model, run.recipe.seed, run.device, trained=run.path / "meta").float()
    found = directions(run, model, truth.subsets[truth.random][: asked.directions])
    examples, g = sampled(run, asked.rows)
    margin, options = run.recipe.sketch.margin, {"pad_id": run.pad_id, "batch_tokens": run.recipe.sketch.batch_tokens}
    start = margins(model, examples, margin, **options)[0]
    begin = time.monotonic()
    with run.reporter.stage("expand", len(examples) + len(found)) as stage:
        exact = np.zeros((len(found), len(examples)))
        for row, example in enumerate(examples):
            exact[:, row] = slopes(model, example, margin, [d.step for d in found], pad_id=run.pad_id)
            stage.advance()
        rows: list[Row] = []
        for direction, slope in zip(found, exact, strict=True):
            for place, distance in _places(asked.distances, direction.end):
                with moved(model, direction.step, distance):
                    there = margins(model, examples, margin, **options)
                figures = errors(start, distance * slope, distance * (g @ direction.sketch), *there)
                named = {"direction": direction.kind, "number": direction.number, "place": place, "distance": distance}
                rows.append({**named, **figures})
            stage.advance()
    write_json(run.path / EXPANDED, {"seconds": time.monotonic() - begin})
    return Part(rows, _means(rows))


def passes(run: Run) -> int:
    """Evaluations of the rows: θ*, the distances of every direction, and the ends of those that have one."""
    return run.recipe.diagnose.directions * (3 * len(run.recipe.diagnose.distances) + 2) + 1


def _places(distances: Sequence[float], end: float) -> list[tuple[str, float]]:
    """What was asked for, and where the direction ends of itself."""
    return [
        *((f"{100 * distance:g}%", distance) for distance in distances),
        *([("end", end)] if np.isfinite(end) else []),
    ]


def sampled(run: Run, count: int) -> tuple[list[Example], np.ndarray]:
    """Up to `count` rows spread evenly over training and validation, and their sketches float64 [rows, d]."""
    examples = [*run.examples(), *run.corpus.validation.examples]
    whole = np.arange(len(examples))
    broken = [nonfinite_rows(run.train), len(run.train) + nonfinite_rows(run.validation)]
    whole = np.setdiff1d(whole, np.concatenate(broken))
    rows = whole[np.linspace(0, len(whole) - 1, min(count, len(whole))).round().astype(int)]
    g = np.concatenate([run.train.g, run.validation.g])[rows].astype(np.float64)
    return [examples[row] for row in rows], g


def _means(rows: list[Row]) -> list[Row]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["direction"], row["place"]), []).append(row)
    return [
        {"direction": kind, **{f: float(np.mean([row[f] for row in some])) for f in FIGURES}}
        for (kind, _), some in groups.items()
    ]
