"""Runs beside one another on a console; text from data is no markup there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradex_fast.report.text import clipped, number
from gradex_fast.units import count_text, duration

_WIDEST = 60
_MOST = 100
"""Sources in the table of those that not all runs chose; JSON has all."""


def print_between(found: Mapping[str, Any], console: Console) -> None:
    """`between`'s values as tables."""
    labels = [run["label"] for run in found["runs"]]
    console.print(_table("run", labels, _figures(found["runs"])))
    for pair in found["pairs"]:
        _say(console, _agreement(pair))
    everyone, some = found["sources"]["all"], found["sources"]["some"]
    _say(console, f"chosen by all: {', '.join(clipped(name, _WIDEST) for name in everyone[:_MOST]) or 'no source'}")
    if some:
        rows = {name: ["✓" if label in by else "" for label in labels] for name, by in [*some.items()][:_MOST]}
        console.print(_table("chosen by some", labels, rows))
    if len(some) > _MOST or len(everyone) > _MOST:
        _say(console, "there are more: --json has all")
    for title in ("settings", "versions"):
        if found[title]:
            rows = {name: [_value(value) for value in values] for name, values in found[title].items()}
            console.print(_table(f"{title} that differ", labels, rows))
    if not found["settings"]:
        _say(console, "the settings are the same")


def _figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    rows = {
        "method": [run["method"] for run in runs],
        "sources": [number(run["sources"]) for run in runs],
        "chosen": [number(len(run["chosen"])) for run in runs],
    }
    models = dict.fromkeys(name for run in runs for name in run["final"])
    for key in ("validation_loss", "validation_exact_match", "test_loss", "test_exact_match"):
        for model in models:
            values = [run["final"].get(model, {}).get(key) for run in runs]
            if any(value is not None for value in values):
                rows[f"{model}: {key.replace('_', ' ')}"] = [number(value) for value in values]
    for key, title in (("choice", "up to the choice"), ("together", "together")):
        spent = [run["cost"].get(key) or {} for run in runs]
        if any(spent):
            rows[f"{title}: time"] = [duration(each.get("seconds"), 1) for each in spent]
            rows[f"{title}: FLOPs"] = [count_text(each.get("flops")) for each in spent]
    return rows


def _agreement(pair: Mapping[str, Any]) -> str:
    (a, b), (only_a, only_b) = pair["runs"], pair["only"]
    both = f"{a} and {b}: {pair['both']} chosen by both, {only_a} by {a} alone, {only_b} by {b} alone"
    if pair["spearman"] is None:
        return f"{both}; their scores cannot be compared"
    return f"{both}; Spearman of the scores {pair['spearman']:.2f} over {pair['common']} sources"


def _table(title: str, labels: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Table:
    table = Table()
    table.add_column(Text(title), overflow="fold")
    for label in labels:
        table.add_column(Text(clipped(label, _WIDEST)), overflow="fold")
    for name, cells in rows.items():
        table.add_row(*(Text(clipped(cell, _WIDEST)) for cell in (name, *cells)))
    return table


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _say(console: Console, line: str) -> None:
    console.print(clipped(line, 10_000), markup=False, highlight=False, soft_wrap=True)
