"""What `bench_solve.py` prints and writes: the machine, the figures to reach, lines of a table, Markdown."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SUBOPTIMALITY, ESTIMATE_ERROR, EXTRA_MIB = 1e-6, 0.01, 256
"""What every row must keep to."""

MICROSECONDS = {"small": (25, 15), "medium": (40, 15), "wide": (250, 80), "large": (180, 70), "xl": (900, 350)}
"""A subset, regime mid, 2 cores: with AVX-512 only, with AMX."""

SECONDS = {"medium whole": (0.5, 0.4), "large whole": (30, 25), "large peak": (3, 2)}
"""Forward selection, regime mid, 2 cores: with AVX-512 only, with AMX."""

RESULTS = ":(top,exclude)benchmarks/results"

_FLAGS = {"AVX2": "avx2", "AVX-512": "avx512f", "bfloat16 dot": "avx512_bf16", "AMX bfloat16": "amx_bf16"}

HIDDEN = {"l2", "subsets", "estimate_deviation", "reference_gradient"}
"""Columns of the JSON that tables leave out."""

Row = Mapping[str, Any]


def machine() -> dict[str, Any]:
    """CPU vendor and family, which vector units it has, cores; never a name of a host."""
    text = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    flags = facts.get("flags", "").split()
    return {
        "cpu": f"{facts.get('vendor_id')} family {facts.get('cpu family')} model {facts.get('model')}",
        **{name: flag in flags for name, flag in _FLAGS.items()},
        "cores": len(os.sched_getaffinity(0)),
    }


def provenance() -> dict[str, Any]:
    names = ("numpy", "scipy", "scikit-learn", "torch")
    return {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.date.today().isoformat(),
        "commit": _git("rev-parse", "--short", "HEAD")
        + ("-dirty" if _git("status", "--porcelain", "--", ":/", RESULTS) else ""),
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in names},
        "machine": machine(),
    }


def must_reach(table: Mapping[str, tuple[float, float]], name: str, regime: str) -> float | None:
    """The figure for this CPU; None where the issue sets none."""
    return table[name][machine()["AMX bfloat16"]] if regime == "mid" and name in table else None


def closing(solves: Sequence[Row], rivals: Sequence[Row]) -> list[Row]:
    """A line for each size and regime of `rivals`: ours, every public solver, and how many times ours the best takes.

    The best is the quickest of those that reach the suboptimality.
    """
    lines = []
    for own in solves:
        others = [row for row in rivals if (row["size"], row["regime"]) == (own["size"], own["regime"])]
        exact = [row["times ours"] for row in others if _reaches(row["suboptimality"])]
        line = {"size": own["size"], "regime": own["regime"], "ours": own["median µs"] / 1e3}
        line |= {row["solver"]: f"{_text(row['milliseconds'])} ({row['threads']})" for row in others}
        lines += [line | {"best / ours": min(exact, default=None)}] if others else []
    return lines


def print_row(row: Row) -> None:
    """A table's line; the header when the columns differ from the last line's."""
    shown = [name for name in row if name not in HIDDEN]
    if shown != print_row.columns:
        print_row.columns = shown
        print("\n" + "  ".join(f"{name:>{_width(name)}}" for name in shown))
    print("  ".join(f"{_text(row[name]):>{_width(name)}}" for name in shown), flush=True)


print_row.columns = []


def markdown(report: Mapping[str, Any]) -> str:
    """The report's tables, each under its title."""
    about = report["machine"]
    units = ", ".join(name if about[name] else f"no {name}" for name in _FLAGS)
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    lines = [f"# {report.get('title', 'The subset solver')}", "", f"`{report['command']}`", ""]
    lines += [f"{report['date']}, commit {report['commit']}; {about['cpu']}, {about['cores']} cores, {units}."]
    lines += [f"Python {report['python']}, {versions}. {report['threads']} threads, {report['repeats']} repeats."]
    for title, rows in report["tables"].items():
        if rows:
            lines += ["", f"## {title}", "", *_markdown_table(rows)]
    return "\n".join(lines) + "\n"


def _markdown_table(rows: Sequence[Row]) -> list[str]:
    shown = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in HIDDEN]
    cells = [shown, ["---"] * len(shown), *([_text(row.get(name)) for name in shown] for row in rows)]
    return ["| " + " | ".join(line) + " |" for line in cells]


def _reaches(suboptimality: float | None) -> bool:
    return suboptimality is not None and suboptimality <= SUBOPTIMALITY


def _width(name: str) -> int:
    return 28 if name == "solver" else max(len(name), 9)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.1e}" if value and abs(value) < 1e-3 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return " ".join(f"{key} {_text(count)}" for key, count in value.items())
    return str(value)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
