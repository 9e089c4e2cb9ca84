"""What a diagnosis leaves in RUN/diagnosis and shows: JSON, a CSV a part, a table a part."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradex_fast.diagnose.part import Part
from gradex_fast.files import read_json, write_atomically, write_json
from gradex_fast.units import count_text, duration

TITLES = {
    "rrss": "first-order expansion: RRSS by relative distance; last, where fine-tuning and the estimate really go",
    "truth": "estimate against truth",
    "dim": "error against the sketch's dimension",
    "ridge": "error against margin and ridge",
    "curvature": "curvature beyond first order",
    "cost": "what it cost, whenever it was carried out",
}


def kept_parts(folder: Path, settings: str) -> dict[str, Part]:
    """The parts that an earlier diagnosis with the same settings has measured."""
    found = read_json(folder / "diagnosis.json")
    if not isinstance(found, dict) or found.get("settings") != settings:
        return {}
    return {name: Part(part["rows"], part["summary"]) for name, part in found["parts"].items()}


def write(folder: Path, settings: str, parts: Mapping[str, Part]) -> None:
    """diagnosis.json of all parts, and NAME.csv of each.

    Raises:
        GradexError: a file cannot be written.
    """
    for name, part in parts.items():
        write_csv(folder, name, part)
    write_json(folder / "diagnosis.json", {"settings": settings, "parts": values(parts)})


def write_csv(folder: Path, name: str, part: Part) -> None:
    write_atomically(folder / f"{name}.csv", csv_of(part))


def values(parts: Mapping[str, Part]) -> dict[str, Any]:
    """JSON values."""
    return {name: {"summary": part.summary, "rows": part.rows} for name, part in parts.items()}


def finite(part: Part) -> Part:
    """None for NaN and infinity, which JSON does not have: a part is the same measured and read."""
    return Part(*([_finite(row) for row in rows] for rows in (part.rows, part.summary)))


def csv_of(part: Part) -> str:
    """A header and one line a row; lists are joined by semicolons."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if part.rows:
        writer.writerow(part.rows[0])
    for row in part.rows:
        writer.writerow([";".join(value) if isinstance(value, list) else value for value in row.values()])
    return text.getvalue()


def show(parts: Mapping[str, Part], console: Console) -> None:
    """The summary of every part as a table."""
    for name, part in parts.items():
        if part.summary:
            table = Table(*(key.replace("_", " ") for key in part.summary[0]), title=TITLES[name], title_justify="left")
            for row in part.summary:
                table.add_row(*(Text(cell(key, value)) for key, value in row.items()))
            console.print(table)


def cell(key: str, value: Any) -> str:
    """A figure as a table has it: a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    if key in ("flops", "seconds"):
        return count_text(value) if key == "flops" else duration(value, 1)
    if not isinstance(value, float):
        return str(value)
    if key in ("spearman", "pearson"):
        return f"{value:.2f}"
    if key == "distance":
        return f"{value:.2%}"
    return f"{value:.1e}" if "error" in key or "rrss" in key else f"{value:g}"


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
