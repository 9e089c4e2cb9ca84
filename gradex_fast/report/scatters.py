"""Two figures of marks in a plane: estimates against truth, and the map of the sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes

from gradex_fast.report.marks import KEPT_MARK, LEFT_MARK, NAMED, SINGLE, with_legend
from gradex_fast.report.svg import KEPT, LEFT, MARK, PAPER, SOFT, Chart
from gradex_fast.report.text import clipped, finite

View = Mapping[str, Any]


def truth_chart(view: View) -> Markup | None:
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
            axes.plot(x, y, **KEPT_MARK, gid=chart.title(names))
    else:
        axes.plot(truth, estimate, **{**KEPT_MARK, "markersize": 3})
    axes.plot([], [], **KEPT_MARK, label="a subset")
    axes.set(xlim=ends, ylim=ends, xlabel="true loss, nats", ylabel="estimated loss, nats")
    return with_legend(chart, left=0.2)


def map_chart(view: View) -> Markup | None:
    """Where the sources' mean gradients point, and the target's."""
    found = view.get("map")
    if not found or not found["target"]:
        return None
    placed = [(s, xy) for s, xy in zip(view["sources"], found["places"], strict=True) if xy]
    chart = Chart("map", f"Map of {len(placed):,} sources and of the target by the direction of their gradients.", 330)
    axes = chart.axes
    for kept, style, label in ((False, LEFT_MARK, "not chosen"), (True, KEPT_MARK, "chosen")):
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
    return with_legend(chart, left=0.03)


def _cells(axes: Axes, places: np.ndarray, style: Mapping[str, Any], cells: int = 24) -> None:
    """One mark for the sources of a cell, its area for how many; at their middle."""
    low, high = places.min(0), places.max(0)
    where = np.minimum((cells * (places - low) / np.where(high > low, high - low, 1)).astype(int), cells - 1)
    _, owner, counts = np.unique(where @ [1, cells], return_inverse=True, return_counts=True)
    middle = [np.bincount(owner, places[:, axis]) / counts for axis in (0, 1)]
    size = 6 + 90 * counts / counts.max()
    face = style["color"] if style is KEPT_MARK else "none"
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
