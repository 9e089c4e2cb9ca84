"""The report's files, each whole or not at all."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from gradex_fast.files import write_atomically
from gradex_fast.report.charts import charts
from gradex_fast.report.text import change, clipped, indented, interval, markdown, number
from gradex_fast.report.view import Summary, has, view_of
from gradex_fast.units import count_text, duration


def write_report(folder: Path, summary: Summary) -> Path:
    """Write metrics.json, report.md and report.html.

    Returns:
        The path of report.html, which is written last.

    Raises:
        GradexError: a file cannot be written.
    """
    view = view_of(summary)
    metrics = json.dumps(without_nan(summary.get("metrics") or {}), indent=2, allow_nan=False)
    write_atomically(folder / "metrics.json", metrics + "\n")
    write_atomically(folder / "report.md", markdown_templates().get_template("report.md").render(view))
    write_atomically(folder / "report.html", _page(view))
    return folder / "report.html"


def scores_csv(folder: Path, summary: Summary) -> Path:
    """Write scores.csv, one line per source in the recipe's order; an unknown figure is left empty.

    Columns: source, rows, score, low, high, chosen (true, false) and, where any is known, truth and a cluster's origin.

    Raises:
        GradexError: the file cannot be written.
    """
    columns = ["rows", "score", "low", "high", "chosen"] + ["truth"] * has(summary, "truth")
    columns += ["origin"] * has(summary, "origin")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", *columns])
    for source in summary["sources"]:
        cells = (json.dumps(bool(source["chosen"])) if c == "chosen" else source.get(c) for c in columns)
        writer.writerow([source["name"], *map(without_nan, cells)])
    write_atomically(folder / "scores.csv", text.getvalue())
    return folder / "scores.csv"


def markdown_templates() -> Environment:
    """Templates into whose Markdown every value goes as inert text."""
    return _templates(finalize=markdown)


def without_nan(value: Any) -> Any:
    """JSON has neither NaN nor infinity: null stands for both."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _page(view: Mapping[str, Any]) -> str:
    """report.html: its only script is named by its checksum, so that no other runs."""
    place = files("gradex_fast") / "templates"
    style, script = (Markup(place.joinpath(name).read_text(encoding="utf-8")) for name in ("report.css", "report.js"))
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {"style": style, "script": script, "allowed": f"sha256-{allowed}", "charts": charts(view)}
    return _templates(autoescape=True).get_template("report.html").render(view | parts)


def _templates(**options: Any) -> Environment:
    loader = PackageLoader("gradex_fast")
    environment = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, **options)
    units = {"flops": count_text, "duration": duration}
    own = {"number": number, "interval": interval, "change": change, "clipped": clipped, "indented": indented}
    environment.filters |= {**units, **own}
    return environment
