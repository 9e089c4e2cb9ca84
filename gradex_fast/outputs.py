"""What the selection leaves in the run's directory: subsets.parquet, selection.json, selected.jsonl."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gradex_fast.files import write_atomically, write_json
from gradex_fast.sketch import nonfinite_rows
from gradex_fast.state import Run
from gradex_fast.types import Sketches


def write_selection(run: Run, seconds: float) -> None:
    """subsets.parquet, selection.json and selected.jsonl."""
    selection, names = run.selection, run.corpus.names
    masks, found = selection.subsets[:, : len(names)], selection.estimates
    members = [np.flatnonzero(mask).astype(np.int32) for mask in masks]
    table = pa.table({"sources": members, "estimate": found.loss, "low": found.low, "high": found.high})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(run.path / "subsets.parquet", buffer.getvalue())
    chosen = {
        "method": run.recipe.select.method,
        "chosen": [names[index] for index in selection.chosen],
        "ridge": run.estimator.ridge,
        "subsets": len(masks),
        "seconds": seconds,
        "path": [{**step, "source": names[step["source"]]} for step in selection.path],
        **in_names(selection.details, names),
        "others": {
            method: {"chosen": [names[index] for index in found.chosen], **in_names(found.details, names)}
            for method, found in run.others.items()
        },
    }
    write_json(run.path / "selection.json", chosen)
    write_atomically(run.path / "selected.jsonl", _selected_rows(run))


def write_nonfinite(run: Run) -> None:
    """nonfinite.csv: the rows that ``sketch.on_nonfinite: skip`` let through; no file where there are none.

    Columns: split (training, validation), source, row (its stable name), what is not finite: loss, margin, gradient.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "source", "row", "what"])
    sources = [*run.corpus.sources, run.corpus.train]
    for split, parts, sketches in (
        ("training", sources, run.train),
        ("validation", [run.corpus.validation], run.validation),
    ):
        rows = [(source.name, example.id) for source in parts for example in source.examples]
        for index in nonfinite_rows(sketches):
            writer.writerow([split, *rows[index], _not_finite(sketches, index)])
    if text.getvalue().count("\n") > 1:
        write_atomically(run.path / "nonfinite.csv", text.getvalue())
    else:
        (run.path / "nonfinite.csv").unlink(missing_ok=True)


def _not_finite(sketches: Sketches, row: int) -> str:
    if not np.isfinite(sketches.loss[row]):
        return "loss"
    return "gradient" if np.isfinite(sketches.margin[row]) else "margin"


def in_names(details: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """`Selection.details` with the sources of its sweep by name."""
    swept = [{**row, "sources": [names[index] for index in row["sources"]]} for row in details.get("sweep", ())]
    return {**details, "sweep": swept} if "sweep" in details else dict(details)


def _selected_rows(run: Run) -> str:
    """One JSON line per row of the chosen sources, then of the target's own training rows.

    ``_source`` is added; where sources are clusters, also ``_row``, the row as the clusters' table names it.
    """
    sources = [run.corpus.sources[index] for index in run.selection.chosen]
    pairs = [(source.name, example) for source in (*sources, run.corpus.train) for example in source.examples]
    ids = [{"_row": example.id} if run.whole else {} for _, example in pairs]
    rows = ({**example.row, "_source": name, **row} for (name, example), row in zip(pairs, ids, strict=True))
    return "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
