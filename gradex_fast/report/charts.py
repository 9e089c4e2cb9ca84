"""The figures of a report. Chosen and other sources differ by shape as well as colour; many are drawn as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes

from gradex_fast.report.svg import INK, KEPT, LEFT, LINE, MARK, PAPER, SOFT, STYLE, Chart
from gradex_fast.report.text import clipped, finite, number

NAMED = 60
"""So many sources have their names beside their scores."""

SINGLE = 400
"""More marks than this in one figure are drawn together."""

View = Mapping[str, Any]

_KEPT = {"marker": "o", "color": KEPT, "markeredgecolor": KEPT, "linestyle": "none"}
_LEFT = {"marker": "s", "color": PAPER, "markeredgecolor": LEFT, "linestyle": "none", "markersize": 5}


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
    for kept, style in ((False, _LEFT), (True, _KEPT)):
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
    return _with_legend(chart)


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
    return _with_legend(chart, left=0.2)


def _truth(view: View) -> Markup | None:
    pairs = view["pairs"]
    if not pairs:
        return None
    chart = Chart("truth", f"Estimated against true loss of {len(pairs)} subsets that were fine-tuned for real.", 300)
    axes = chart.axes
    truth, estimate = (np.array([pair[key] for pair in pairs]) for key in ("truth", "estimate"))
    low, high = min([*truth, *estimate]), max([*truth, *estimate])
    edge = 0.08 * (high - low) or 0.01
    ends = low - edge, high + edge
    axes.plot(ends, ends, color=SOFT, linewidth=1, label="estimate = truth")
    axes.axhline(truth.mean(), color=LEFT, linestyle=(0, (4, 2)), linewidth=1.4, label="a constant")
    if all(finite(pair.get("low")) and finite(pair.get("high")) for pair in pairs):
        axes.vlines(truth, *([pair[key] for pair in pairs] for key in ("low", "high")), color=KEPT, linewidth=1.2)
    if len(pairs) <= SINGLE:
        for pair, x, y in zip(pairs, truth, estimate, strict=True):
            names = clipped(", ".join(clipped(name, 30) for name in pair["subset"][:20]), 300)
            axes.plot(x, y, **_KEPT, gid=chart.title(names))
    else:
        axes.plot(truth, estimate, **{**_KEPT, "markersize": 3})
    axes.plot([], [], **_KEPT, label="a subset")
    axes.set(xlim=ends, ylim=ends, xlabel="true loss, nats", ylabel="estimated loss, nats")
    return _with_legend(chart, left=0.2)


def _map(view: View) -> Markup | None:
    """Where the sources' mean gradients point, and the target's."""
    found = view.get("map")
    if not found or not found["target"]:
        return None
    placed = [(s, xy) for s, xy in zip(view["sources"], found["places"], strict=True) if xy]
    chart = Chart("map", f"Map of {len(placed):,} sources and of the target by the direction of their gradients.", 330)
    axes = chart.axes
    for kept, style, label in ((False, _LEFT, "not chosen"), (True, _KEPT, "chosen")):
        these = [(source, xy) for source, xy in placed if bool(source["chosen"]) == kept]
        if len(placed) <= SINGLE:
            for source, (x, y) in these:
                axes.plot(x, y, **style, gid=chart.title(clipped(source["name"], 120)))
        elif these:
            _cells(axes, np.array([xy for _, xy in these]), style)
        axes.plot([], [], **style, label=f"{label} ({len(these):,})")
    across = [xy[0] for _, xy in placed]
    right = min(across) + 0.7 * (max(across) - min(across)) if len(set(across)) > 1 else np.inf
    for source, xy in _apart(placed) if len(placed) <= NAMED else ():
        side = -1 if xy[0] > right else 1
        options = {"textcoords": "offset points", "fontsize": 10, "color": SOFT, "ha": "right" if side < 0 else "left"}
        axes.annotate(chart.text(clipped(source["name"], 14)), xy, (6 * side, 3), **options)
    axes.plot(*found["target"], "*", color=MARK, markersize=17, markeredgecolor=PAPER, linestyle="none", label="target")
    axes.set(xticks=[], yticks=[], aspect="equal", adjustable="datalim")
    axes.margins(0.12)
    axes.spines[:].set_visible(False)
    return _with_legend(chart, left=0.03)


def _with_legend(chart: Chart, **margins: float) -> Markup:
    """Below the figure, where it hides nothing."""
    options = {"columnspacing": 1.0, "handletextpad": 0.4, "borderaxespad": 0.2, "handlelength": 1.6}
    handles, labels = chart.axes.get_legend_handles_labels()
    chart.figure.legend(handles, labels, loc="lower center", ncols=3, **options)
    room = 58 / (72 * chart.figure.get_figheight())
    return chart.svg(**{"bottom": room + 0.03 if chart.axes.get_xlabel() else room - 0.06, **margins})


def _cells(axes: Axes, places: np.ndarray, style: Mapping[str, Any], cells: int = 24) -> None:
    """One mark for the sources of a cell, its area for how many; at their middle."""
    low, high = places.min(0), places.max(0)
    where = np.minimum((cells * (places - low) / np.where(high > low, high - low, 1)).astype(int), cells - 1)
    _, owner, counts = np.unique(where @ [1, cells], return_inverse=True, return_counts=True)
    middle = [np.bincount(owner, places[:, axis]) / counts for axis in (0, 1)]
    size = 6 + 90 * counts / counts.max()
    face = style["color"] if style is _KEPT else "none"
    axes.scatter(
        *middle, s=size, marker=style["marker"], facecolor=face, edgecolor=style["markeredgecolor"], alpha=0.75
    )


def _apart(placed: Sequence[tuple[View, Sequence[float]]], width: float = 0.26, height: float = 0.05) -> list:
    """Of the sources, those whose names do not lie on one another; those farthest out first."""
    points = np.array([xy for _, xy in placed]).reshape(-1, 2)
    if not len(points):
        return []
    reach = np.ptp(points, axis=0).max() or 1.0
    order, taken = np.argsort(-np.abs(points - points.mean(0)).sum(1)), []
    for index in order:
        gaps = np.abs(points[taken] - points[index]) / reach if taken else np.ones((1, 2))
        if ((gaps[:, 0] > width) | (gaps[:, 1] > height)).all():
            taken.append(int(index))
    return [placed[index] for index in taken]


DRAW = {"scores": _scores, "convergence": _convergence, "path": _path, "truth": _truth, "map": _map}
