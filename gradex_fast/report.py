"""One run -> metrics.json, report.md, self-contained report.html, scores.csv, the terminal's table.

A summary is a plain mapping. Its ``sources`` are required (of each its name, rows and chosen);
every other part may be empty, None or absent.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from gradex_fast.files import write_atomically
from gradex_fast.units import count_text, duration

Summary = Mapping[str, Any]

_FIGURES = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "relative_error": "relative error",
    "calibrated_error": "the same, calibrated",
    "constant_error": "the same, of a constant",
    "auc": "AUC of the scores",
}
_UNKNOWN = "\N{EN DASH}"
_SCORE = {
    "ensemble": "the mean estimated loss of the sampled subsets that contain the source",
    "forward": "what the source changes in the estimated loss of the chosen set",
    "backward": "what the source changes in the estimated loss of the chosen set",
    "floating": "what the source changes in the estimated loss of the chosen set",
}


def write_report(folder: Path, summary: Summary) -> Path:
    """Write metrics.json, report.md and report.html, each whole or not at all.

    Returns:
        The path of report.html, which is written last.

    Raises:
        GradexError: a file cannot be written.
    """
    view = _view(summary)
    metrics = json.dumps(_without_nan(summary.get("metrics") or {}), indent=2, allow_nan=False)
    write_atomically(folder / "metrics.json", metrics + "\n")
    write_atomically(folder / "report.md", markdown_templates().get_template("report.md").render(view))
    write_atomically(folder / "report.html", _templates(autoescape=True).get_template("report.html").render(view))
    return folder / "report.html"


def scores_csv(folder: Path, summary: Summary) -> Path:
    """Write scores.csv, one line per source in the recipe's order; an unknown figure is left empty.

    Columns: source, rows, score, low, high, chosen (true, false) and, where any is known, truth and a cluster's origin.

    Raises:
        GradexError: the file cannot be written.
    """
    columns = ["rows", "score", "low", "high", "chosen"] + ["truth"] * _has_truth(summary)
    columns += ["origin"] * _has_origin(summary)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", *columns])
    for source in summary["sources"]:
        cells = (json.dumps(bool(source["chosen"])) if c == "chosen" else source.get(c) for c in columns)
        writer.writerow([source["name"], *map(_without_nan, cells)])
    write_atomically(folder / "scores.csv", text.getvalue())
    return folder / "scores.csv"


def terminal_table(summary: Summary) -> Table:
    """Sources by score, for a console; no name is read as markup or as an escape code."""
    table, view = Table(), _view(summary)
    table.add_column("source", overflow="fold")
    table.add_column("score ± 95 %", justify="right", no_wrap=True)
    table.add_column("chosen", justify="center")
    if view["has_truth"]:
        table.add_column("truth", overflow="fold")
    for source in view["ranked"]:
        cells = [source["name"], _interval(source, view["places"]), "✓" if source["chosen"] else ""]
        cells += [source.get("truth") or ""] if view["has_truth"] else []
        style = "" if source["chosen"] else "dim"
        table.add_row(*(Text(_printable(cell), style=style) for cell in cells))
    return table


def score_meaning(summary: Summary) -> str:
    """What a source's score is."""
    return _SCORE.get(summary.get("method", ""), "an estimated loss")


def markdown_templates() -> Environment:
    """Templates into whose Markdown every value goes as inert text."""
    return _templates(finalize=_markdown)


def _view(summary: Summary) -> dict[str, Any]:
    """What the templates read: the summary, its sources by score, and one axis per chart."""
    sources, final = summary["sources"], summary.get("final") or {}
    cost = summary.get("cost") or _only_seconds(summary.get("seconds") or {})
    metrics = summary.get("metrics") or {}
    scores, low, high = ([s[k] for s in sources if _finite(s.get(k))] for k in ("score", "low", "high"))
    pairs = [p for p in summary.get("truth") or [] if _finite(p["truth"]) and _finite(p["estimate"])]
    best, worst = min(scores, default=0.0), max(scores, default=1.0)
    # The chart ends one range of the scores past them; a wider interval runs off its edge.
    left, right = min([best, *low]), max([worst, *high])
    reach = worst - best or math.inf
    span = max(left, best - reach), min(right, worst + reach)
    return {
        **summary,
        "details": summary.get("details") or {},
        "cost": cost,
        "cost_rows": _cost_rows(cost) if cost else [],
        "score_meaning": score_meaning(summary),
        "ranked": sorted(sources, key=lambda s: s["score"] if _finite(s.get("score")) else math.inf),
        "chosen": [source for source in sources if source["chosen"]],
        "has_truth": _has_truth(summary),
        "has_origin": _has_origin(summary),
        "has_score": bool(scores),
        "places": min(8, max(3, math.ceil(2 - math.log10(worst - best)))) if worst > best else 4,
        "clipped": span != (left, right),
        "span": span,
        "score_axis": _axis(span),
        "path_axis": _axis(step["loss"] for step in summary.get("path") or []),
        "pairs": pairs,
        "pair_span": [p[k] for p in pairs for k in ("truth", "estimate")],
        "pair_axis": _axis(p[k] for p in pairs for k in ("truth", "estimate")),
        "figures": [(k, label) for k, label in _FIGURES.items() if metrics.get(k) is not None],
        "final_columns": list(dict.fromkeys(column for row in final.values() for column in row)),
    }


def _only_seconds(seconds: Mapping[str, float]) -> Summary | None:
    """The account of a run whose passes nobody counted."""
    if not seconds:
        return None
    unknown = {"forward_rows": None, "backward_rows": None, "flops": None}
    stages = {stage: {**unknown, "seconds": value} for stage, value in seconds.items()}
    return {"stages": stages, "together": {**unknown, "seconds": sum(seconds.values())}}


def _cost_rows(cost: Summary) -> list[tuple[str, Summary]]:
    """Of the table: every stage, all that led to the choice, everything."""
    sums = {"up to the choice": cost.get("choice"), "together": cost["together"]}
    return [*cost["stages"].items(), *((name, spent) for name, spent in sums.items() if spent)]


def _axis(values: Iterable[Any]) -> Callable[[Any], str | None]:
    """From a value to 8 … 92 per cent (the values' range) of a chart; None where not finite."""
    finite = [value for value in values if _finite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    low, high = (low, high) if high > low else (low - 0.5, low + 0.5)
    return lambda v: f"{8 + 84 * (v - low) / (high - low):.2f}" if _finite(v) else None


def _interval(source: Mapping[str, Any], places: int) -> str:
    if not _finite(source.get("score")):
        return _UNKNOWN
    score = f"{source['score']:.{places}f}"
    if not (_finite(source.get("low")) and _finite(source.get("high"))):
        return score
    return f"{score} ± {(source['high'] - source['low']) / 2:.{places}f}"


def _number(value: Any, digits: int = 4) -> str:
    """So many significant digits; a dash for None, NaN and what is absent; text as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        return f"{value:,}"
    return f"{value:#.{digits}g}".rstrip(".") if _finite(value) else _UNKNOWN


def _change(value: Any, reference: Any) -> str:
    """How far `value` lies under or over `reference`, in per cent; empty if that means nothing."""
    if not (_finite(value) and _finite(reference) and reference > 0):
        return ""
    change = 100 * (value / reference - 1)
    return f"{abs(change):.3g} % {'lower' if change <= 0 else 'higher'}"


def _finite(value: Any) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _has_truth(summary: Summary) -> bool:
    return any(source.get("truth") for source in summary["sources"])


def _has_origin(summary: Summary) -> bool:
    return any(source.get("origin") for source in summary["sources"])


def _without_nan(value: Any) -> Any:
    """JSON has neither NaN nor infinity: null stands for both."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _printable(text: str) -> str:
    r"""Line breaks, escape codes and reversed writing spelt out, as in ``\n``; one line always."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _markdown(value: Any) -> str:
    """Text from data, inert in GitHub Markdown and inside its table cells."""
    if isinstance(value, Markup):
        return value
    return re.sub(r"([\\`*_~$|&<>\[\]])", r"\\\1", _printable(str(value)))


def _templates(**options: Any) -> Environment:
    loader = PackageLoader("gradex_fast")
    environment = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, **options)
    code = {"indented": lambda text: Markup("".join(f"    {line}\n" for line in text.splitlines()))}
    units = {"flops": count_text, "duration": duration}
    environment.filters |= {"number": _number, "interval": _interval, "change": _change, **units, **code}
    return environment
