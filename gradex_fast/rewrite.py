"""The report of a finished run, written again from its directory alone: no model, no data, no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradex_fast.recipe import Recipe
from gradex_fast.report import kept_summary, scores_csv, write_report


def folder_of(place: Path) -> Path:
    """The folder of the run at `place`: that folder, or its recipe.

    Raises:
        GradexError: there is neither.
    """
    return place if place.is_dir() else Path(Recipe.load(place).output)


def rewrite(place: Path) -> dict[str, Any]:
    """Write metrics.json, scores.csv, report.md and report.html of the run at `place` again.

    Returns:
        ``report``: the path of report.html; ``chosen``: names.

    Raises:
        GradexError: there is no run, it has not selected yet, or a file cannot be written.
    """
    folder = folder_of(place)
    summary = kept_summary(folder)
    scores_csv(folder, summary)
    made = write_report(folder, summary)
    return {"report": str(made), "chosen": [source["name"] for source in summary["sources"] if source["chosen"]]}
