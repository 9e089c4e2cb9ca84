"""The figures of a report. Chosen and other sources differ by shape as well as colour; many are drawn as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes

from gradex_fast.report.marks import KEPT_MARK, LEFT_MARK, NAMED, SINGLE, with_legend
from gradex_fast.report.scatters import map_chart, truth_chart
from gradex_fast.report.svg import INK, KEPT, LEFT, LINE, MARK, PAPER, STYLE, Chart
from gradex_fast.report.text import clipped, finite, number

View = Mapping[str, Any]


def charts(view: View) -> dict[str, Markup]:
    """By name, those for which the run has the figures."""
    with rc_context(STYLE):
        found = {name: draw(view) for name, draw in DRAW.items()}
    return {name: chart for name, chart in found.items() if chart}


def _scores(view: View) -> Markup | None:
    """A line per source, best first; of many, a band for every so many of them."""
    known = [source for source in view["ranked"] if finite(source.get("score"))]
    if not known:
        return None
    named = len(known) <= NAMED
    chart = Chart("scores", _told(known), 60 + 17 * len(known) if named else 330)
    axes = chart.axes
    step = -(-len(known) // SINGLE)
    for kept, style in ((False, LEFT_MARK), (True, KEPT_MARK)):
        places = [place for place, source in enumerate(known) if bool(source["chosen"]) == kept]
        _intervals(axes, [places[i : i + step] for i in range(0, len(places), step)], known, style)
    gamma = view["details"].get("threshold")
    if finite(gamma):
        axes.axvline(gamma, color=MARK, linestyle=(0, (4, 2)), linewidth=1.2)
    _span(axes, known, gamma)
    axes.set(xlabel="score, nats: lower is better", ylim=(len(known) - 0.4, -0.6))
    if named:
        axes.set_yticks(range(len(known)), [chart.text(clipped(source["name"], 17)) for source in known])
        axes.tick_params(axis="y", length=0)
        return chart.svg(left=0.31, bottom=45 / (60 + 17 * len(known)), top=1 - 8 / (60 + 17 * len(known)))
    axes.set_ylabel("place")
    return chart.svg(bottom=0.14)


def _told(known: Sequence[View]) -> str:
    best, worst = (number(known[place]["score"]) for place in (0, -1))
    kept = sum(bool(source["chosen"]) for source in known)
    return f"Scores of {len(known):,} sources from {best} to {worst}; {kept:,} of them are chosen. The table has all."


def _intervals(axes: Axes, groups: Sequence[Sequence[int]], known: Sequence[View], style: Mapping[str, Any]) -> None:
    """A mark and an interval for each group of sources: the means of theirs."""
    ends = np.array([[_mean(known[i].get(key) for i in group) for key in ("low", "score", "high")] for group in groups])
    places = [float(np.mean(group)) for group in groups]
    if len(ends):
        alpha = 1.0 if len(known) <= SINGLE else 0.3
        axes.hlines(places, ends[:, 0], ends[:, 2], color=style["markeredgecolor"], linewidth=1.4, alpha=alpha)
        size = {} if len(known) <= NAMED else {"markersize": 3}
        axes.plot(ends[:, 1], places, **{**style, **size})


def _mean(values: Any) -> float:
    known = [value for value in values if finite(value)]
    return float(np.mean(known)) if known else np.nan


def _span(axes: Axes, known: Sequence[View], gamma: Any) -> None:
    """All scores; of wide intervals no more than one range of the scores to either side."""
    scores = [source["score"] for source in known]
    reach = (max(scores) - min(scores)) or np.inf
    ends = [source[key] for source in known for key in ("low", "high") if finite(source.get(key))]
    low, high = min([*scores, *ends]), max([*scores, *ends])
    low, high = max(low, min(scores) - reach), min(high, max(scores) + reach)
    if finite(gamma):
        low, high = min(low, gamma), max(high, gamma)
    edge = 0.04 * (high - low) or 0.5
    axes.set_xlim(low - edge, high + edge)


def _convergence(view: View) -> Markup | None:
    rows = [row for row in view["details"].get("convergence") or [] if finite(row["spearman"]) and finite(row["error"])]
    if not rows:
        return None
    total = (view.get("estimate") or {}).get("subsets")
    chart = Chart(
        "convergence", "How the ensemble's scores settle with the number of subsets; the table has the figures."
    )
    axes = chart.axes
    counts = [row["subsets"] for row in rows]
    axes.plot(counts, [row["spearman"] for row in rows], "o-", color=KEPT, label="Spearman with all")
    axes.plot(counts, [row["error"] for row in rows], "s--", color=LEFT, markerfacecolor=PAPER, label="error")
    ends = [row[key] for row in rows for key in ("spearman", "error")]
    limits = min([0.0, *ends]), 1.08 * max([1.0, *ends])
    axes.set(xscale="log", xlabel=f"subsets{f' of {total:,}' if total else ''}", ylim=limits)
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xticks([], minor=True)
    axes.axhline(1, color=LINE, linewidth=1, zorder=0)
    return with_legend(chart)


def _path(view: View) -> Markup | None:
    """Of every greedy method: f̂ of the sets that it went through."""
    found = {name: points for name, points in (view.get("curves") or {}).items() if points}
    if not found:
        return None
    chart = Chart("path", f"Estimated loss against the number of sources: {', '.join(found)} selection.", 270)
    axes = chart.axes
    styles = (("-", "o", KEPT), ("--", "s", LEFT), (":", "^", MARK))
    for (name, points), (line, marker, color) in zip(found.items(), styles, strict=False):
        few = {"marker": marker, "markersize": 4} if len(points) <= NAMED else {}
        places = [point["sources"] for point in points]
        axes.plot(places, [point["loss"] for point in points], line, color=color, label=name, **few)
        band = [(p["sources"], p["low"], p["high"]) for p in points if finite(p.get("low")) and finite(p.get("high"))]
        if band:
            axes.fill_between(*zip(*band, strict=True), color=color, alpha=0.12, linewidth=0)
    lowest = min((point for points in found.values() for point in points), key=lambda point: point["loss"])
    axes.plot(lowest["sources"], lowest["loss"], "*", color=INK, markersize=11, label="lowest")
    axes.set(xlabel="sources in the set", ylabel="estimated loss, nats")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return with_legend(chart, left=0.2)


DRAW = {"scores": _scores, "convergence": _convergence, "path": _path, "truth": truth_chart, "map": map_chart}
