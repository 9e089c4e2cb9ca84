"""What the report shows of a run beside its figures: the sources' map, single rows, greedy paths."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradex_fast.alignment import Alignments, alignments, cosines, group_gradients, mean_gradient, plane
from gradex_fast.state import Run
from gradex_fast.types import Example, Selection

SHOWN_SOURCES = 30
"""Of more sources, rows are shown of the best and the worst by score."""

SHOWN_ROWS = 3
"""Of a source's rows, at each end."""

LONGEST = 400
"""Characters of one column of a row."""

POINTS = 200
"""Of a longer greedy path, so many sets have an interval."""


def source_map(run: Run) -> dict[str, Any]:
    """Of every source and of the target: where its mean gradient points.

    ``places``: by source, [x, y] or None without a direction; ``target``: the same of the validation rows; ``cosines``
    with the target, by source; ``share`` of the squared distances that the plane keeps; ``dim`` d.
    """
    estimator, count = run.estimator, len(run.corpus.sources)
    target = mean_gradient(estimator.valid)
    means = group_gradients(estimator.train, estimator.group_ptr[: count + 1])
    places, share = plane(np.vstack([means, target]))
    *found, mark = [place.tolist() if np.isfinite(place).all() else None for place in places]
    near = [float(one) if np.isfinite(one) else None for one in cosines(means, target)]
    return {"places": found, "target": mark, "cosines": near, "share": share, "dim": int(means.shape[1])}


def extreme_rows(run: Run) -> list[dict[str, Any]]:
    """Of sources, best score first: the rows whose step would lower the target's loss most, and least.

    Of each source ``name``, ``best`` and ``worst``; of each row its id, ``text`` (column, content), ``value`` and
    ``error`` (`Alignments`), and ``loss`` at θ*. No row is in both.
    """
    estimator = run.estimator
    found = alignments(estimator.train, mean_gradient(estimator.valid))
    examples = run.examples()
    if len(estimator.train) < len(examples):  # those that are not finite were left out
        examples = [examples[row] for row in np.flatnonzero(run.train.finite)]
    return [_ends(run, source, found, examples) for source in _shown(run.selection.scores[: len(run.corpus.sources)])]


def _shown(scores: np.ndarray) -> list[int]:
    ranked = np.argsort(scores, kind="stable").tolist()  # NaN last
    if len(ranked) <= SHOWN_SOURCES:
        return ranked
    return [*ranked[: SHOWN_SOURCES // 2], *ranked[-SHOWN_SOURCES // 2 :]]


def _ends(run: Run, source: int, found: Alignments, examples: Sequence[Example]) -> dict[str, Any]:
    start, stop = run.estimator.group_ptr[source : source + 2]
    order = start + np.argsort(-found.value[start:stop], kind="stable")
    best = order[: min(SHOWN_ROWS, (len(order) + 1) // 2)]
    worst = order[::-1][: min(SHOWN_ROWS, len(order) // 2)]
    ends = {"best": best, "worst": worst}
    shown = {end: [_row(run, row, found, examples[row]) for row in rows.tolist()] for end, rows in ends.items()}
    return {"name": run.corpus.names[source], **shown}


def _row(run: Run, row: int, found: Alignments, example: Example) -> dict[str, Any]:
    figures = {"value": float(found.value[row]), "error": float(found.error[row])}
    return {"id": example.id, "text": _text(example.row), **figures, "loss": float(run.estimator.train.loss[row])}


def _text(row: Mapping[str, Any]) -> list[list[str]]:
    """Columns that are not empty, cut at `LONGEST` characters."""
    contents = ((str(name), _plain(value)) for name, value in row.items() if value not in (None, "", [], {}))
    return [[name, text if len(text) <= LONGEST else f"{text[:LONGEST]}…"] for name, text in contents]


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def curves(run: Run) -> dict[str, list[dict[str, Any]]]:
    """By greedy method, of every set on its path: ``sources``, how many it holds, and f̂, its ``loss``; of up to
    `POINTS` of them ``low`` and ``high``. Where f̂ runs the model there are no intervals."""
    methods = {run.recipe.select.method: run.selection, **run.others}
    return {name: _curve(run, found) for name, found in methods.items() if found.path}


def _curve(run: Run, found: Selection) -> list[dict[str, Any]]:
    path, count = found.path, len(run.corpus.sources)
    mask = np.zeros(run.estimator.groups, bool)
    mask[list(found.chosen)] = True
    for step in path[: found.details["steps"]]:
        mask[step["source"]] ^= True  # back to where the path began
    masks = []
    for step in path:
        mask[step["source"]] ^= True
        masks.append(mask.copy())
    points = [
        {"sources": int(mask[:count].sum()), "loss": float(step["loss"])}
        for mask, step in zip(masks, path, strict=True)
    ]
    if run.recipe.estimate.mode == "linear":
        some = np.unique(np.linspace(0, len(path) - 1, min(len(path), POINTS)).astype(int))
        estimates = run.estimator.estimate(np.stack([masks[index] for index in some]))
        for index, low, high in zip(some, estimates.low, estimates.high, strict=True):
            points[index] |= {"low": float(low), "high": float(high)}
    return points
