"""What `gpu_check.py` writes: a row for every figure, beside what it must reach; JSON and Markdown."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import solve_report

Row = dict[str, Any]

BANNER = "**Dry run: tiny models and shapes on the CPU. Nothing here is a measurement.**"

BAD = ("failed", "timed out")
"""Statuses of a step that make the whole command fail."""


def row(
    what: str,
    measured: float | None,
    unit: str = "",
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    check: bool = False,
    note: str = "",
    figures: Mapping[str, float | None] | None = None,
) -> Row:
    """One figure. It has reached nothing if it was not measured, or is not a number.

    Args:
        check: whether it is about right and wrong, so that a miss makes the command fail; a speed depends on the card.
        figures: what else was found on the way, by name with the unit.
    """
    must, reached = "", None
    if at_most is not None:
        must, reached = f"≤ {at_most:g}", measured is not None and measured <= at_most
    if at_least is not None:
        must, reached = f"≥ {at_least:g}", measured is not None and measured >= at_least
    figures = {name: None if value is None else float(value) for name, value in (figures or {}).items()}
    found = {"what": what, "measured": None if measured is None else float(measured), "unit": unit}
    return {**found, "must reach": must, "reached": reached, "check": check, "note": note, "figures": figures}


def failed(report: Mapping[str, Any]) -> bool:
    """Whether the build, a test, a sanitizer, a measure's process or a check of correctness failed."""
    steps = report["steps"]
    checks = [each for step in steps for each in step["rows"] if each["check"]]
    return any(step["status"] in BAD for step in steps) or any(each["reached"] is False for each in checks)


def write(report: Mapping[str, Any], folder: Path) -> str:
    """Both files; gives the Markdown."""
    text = markdown(report)
    (folder / "gpu_check.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    (folder / "gpu_check.md").write_text(text)
    return text


def markdown(report: Mapping[str, Any]) -> str:
    """`solve_report`'s page, with the device under its title; the table of results comes last."""
    machine = report["machine"]
    about = {
        "title": "The CUDA kernels on a device",
        "command": " ".join(["python", *sys.argv]),
        "date": machine["date"],
        "commit": machine["commit"],
        "python": machine["python"],
        "machine": solve_report.machine(),
        "versions": machine["versions"],
        "threads": "All",
        "repeats": report["repeats"],
        "tables": _tables(report["steps"]),
    }
    title, rest = solve_report.markdown(about).split("\n", 1)
    device = ", ".join(f"{name} {value}" for name, value in machine["device"].items())
    banner = ["", BANNER] if report["dry run"] else []
    return "\n".join([title, *banner, "", device + ".", rest])


def _tables(steps: Sequence[Mapping[str, Any]]) -> dict[str, list[Row]]:
    with_figures = {step["step"]: [each for each in step["rows"] if each["figures"]] for step in steps}
    details = {
        f"Figures: {name}": [{"what": each["what"], **each["figures"]} for each in rows]
        for name, rows in with_figures.items()
    }
    shown = ("step", "status", "seconds", "may take", "note")
    results = [_line(each) for step in steps for each in step["rows"]]
    return {"Steps": [{name: step[name] for name in shown} for step in steps], **details, "Results": results}


def _line(found: Row) -> Row:
    amount = None if found["measured"] is None else f"{found['measured']:.4g} {found['unit']}".rstrip()
    line = {"what": found["what"], "measured": amount, "must reach": found["must reach"] or None}
    return {**line, "reached": found["reached"], "note": found["note"]}
