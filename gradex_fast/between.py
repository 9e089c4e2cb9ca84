"""Two or more runs beside one another: their choices, how their scores agree, their cost, where recipes differ."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from gradex_fast.errors import GradexError
from gradex_fast.files import read_json
from gradex_fast.metrics import spearman
from gradex_fast.recipe import Recipe

_IDENTITY = {"data": "checksum of the data", "model": "checksum of the model"}


@dataclass(frozen=True)
class Finished:
    """What a run's directory says.

    Attributes:
        label: its folder's name, made unique where two have the same.
        scores: by source, lower is better; empty where the run has none yet.
        chosen: names. settings: the recipe's leaves by dotted name, and checksums of data and model.
        final: validation and test figures by model; ``selected``, ``all``, ... cost: ``choice``, ``together``.
    """

    folder: Path
    label: str
    method: str
    scores: Mapping[str, float]
    chosen: Sequence[str]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    final: Mapping[str, Mapping[str, Any]]
    cost: Mapping[str, Any]


def is_run(place: Path) -> bool:
    """Whether it is a run's directory, and not a recipe."""
    return (place / "manifest.json").is_file()


def read(folder: Path, label: str) -> Finished:
    """From the directory's files: neither model nor data.

    Raises:
        GradexError: it is no run, or has not selected yet.
    """
    if not is_run(folder):
        raise GradexError(f"{folder} is no run: there is no manifest.json; compare takes folders of runs, or a recipe")
    manifest, selection = read_json(folder / "manifest.json"), read_json(folder / "selection.json")
    if not selection or not manifest:
        raise GradexError(f"{folder} has chosen nothing yet; finish it: gradex-fast run {folder / 'config.yaml'}")
    tree = Recipe.load(folder / "config.yaml").model_dump(mode="json", exclude={"output"})
    checksums = {name: manifest["identity"][key] for key, name in _IDENTITY.items()}
    summary = (read_json(folder / "report.json") or {}).get("summary") or {}
    metrics = summary.get("metrics") or read_json(folder / "metrics.json") or {}
    return Finished(
        folder,
        label,
        selection["method"],
        _scores(folder, summary),
        selection["chosen"],
        dict(_leaves(tree)) | checksums,
        manifest["versions"],
        _finals(manifest["done"]),
        metrics.get("cost") or {},
    )


def between(folders: Sequence[Path]) -> dict[str, Any]:
    """What two or more runs say of one another, as JSON values.

    ``runs``: each; ``sources``: names by what chose them, ``all``, and ``some`` with the labels of the runs that did;
    ``pairs``: of any two, the counts of ``both`` and of those that ``only`` one chose, the Jaccard index, and the
    Spearman correlation of the scores of the ``common`` sources; ``settings`` and ``versions``: those that differ, by
    name, one value a run.

    Raises:
        GradexError: fewer than two folders, one of them twice, or one that is no run or has not selected yet.
    """
    if len(folders) < 2:
        raise GradexError("compare takes two or more runs, or a recipe")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise GradexError("compare: the same run was named twice")
    runs = [read(folder, label) for folder, label in zip(folders, _labels(folders), strict=True)]
    chosen = list(dict.fromkeys(name for run in runs for name in run.chosen))
    by = {name: [run.label for run in runs if name in set(run.chosen)] for name in chosen}
    return {
        "runs": [_shown(run) for run in runs],
        "sources": {
            "all": [name for name, labels in by.items() if len(labels) == len(runs)],
            "some": {name: labels for name, labels in by.items() if len(labels) < len(runs)},
        },
        "pairs": [_pair(a, b) for a, b in combinations(runs, 2)],
        "settings": _differing([run.settings for run in runs]),
        "versions": _differing([run.versions for run in runs]),
    }


def _shown(run: Finished) -> dict[str, Any]:
    named = {"label": run.label, "folder": str(run.folder), "method": run.method}
    counts = {"sources": len(run.scores) or None, "chosen": list(run.chosen)}
    return {**named, **counts, "final": dict(run.final), "cost": dict(run.cost)}


def _pair(a: Finished, b: Finished) -> dict[str, Any]:
    one, two = set(a.chosen), set(b.chosen)
    common = [name for name in a.scores if name in b.scores]
    ranks = [np.array([run.scores[name] for name in common]) for run in (a, b)]
    rho = spearman(*ranks) if len(common) > 1 else float("nan")
    return {
        "runs": [a.label, b.label],
        "both": len(one & two),
        "only": [len(one - two), len(two - one)],
        "jaccard": len(one & two) / len(one | two) if one | two else 1.0,
        "common": len(common),
        "spearman": rho if np.isfinite(rho) else None,
    }


def _differing(tables: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Where a table does not have a name, it has None."""
    names = reduce(lambda known, table: known | dict.fromkeys(table), tables, {})
    rows = {name: [table.get(name) for table in tables] for name in names}
    return {name: values for name, values in rows.items() if any(value != values[0] for value in values)}


def _leaves(tree: Any, place: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        return [leaf for name, value in tree.items() for leaf in _leaves(value, f"{place}.{name}" if place else name)]
    if isinstance(tree, list) and any(isinstance(value, Mapping) for value in tree):
        return [leaf for index, value in enumerate(tree) for leaf in _leaves(value, f"{place}.{index}")]
    return [(place, tree)]


def _scores(folder: Path, summary: Mapping[str, Any]) -> dict[str, float]:
    """Of the sources that have one; report.json is there before scores.csv, and in older runs only this."""
    rows = [(row["name"], row["score"]) for row in summary.get("sources") or []]
    if not rows and (folder / "scores.csv").is_file():
        with open(folder / "scores.csv", encoding="utf-8", newline="") as file:
            rows = [(row["source"], row["score"]) for row in csv.DictReader(file)]
    return {name: float(score) for name, score in rows if score not in (None, "")}


def _finals(done: Mapping[str, Any]) -> dict[str, Any]:
    """The notes of models that were trained from the pretrained one, and of the meta-model."""
    named = {"final": "selected", "meta": "meta"}
    notes = {named.get(name, name): note for name, note in done.items() if name in named or name.startswith("compare/")}
    return {name: {key: value for key, value in note.items() if key != "data"} for name, note in notes.items()}


def _labels(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    whole = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, whole)) + 1):
        labels = ["/".join(parts[-length:]) for parts in whole]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]
