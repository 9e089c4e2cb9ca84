"""What the figures of a report have in common: marks that differ by shape as well as colour, a legend, limits."""

from __future__ import annotations

from markupsafe import Markup

from gradex_fast.report.svg import KEPT, LEFT, PAPER, Chart

NAMED = 60
"""So many sources have their names beside their scores."""

SINGLE = 400
"""More marks than this in one figure are drawn together."""

KEPT_MARK = {"marker": "o", "color": KEPT, "markeredgecolor": KEPT, "linestyle": "none"}
LEFT_MARK = {"marker": "s", "color": PAPER, "markeredgecolor": LEFT, "linestyle": "none", "markersize": 5}


def with_legend(chart: Chart, **margins: float) -> Markup:
    """Below the figure, where it hides nothing."""
    options = {"columnspacing": 1.0, "handletextpad": 0.4, "borderaxespad": 0.2, "handlelength": 1.6}
    handles, labels = chart.axes.get_legend_handles_labels()
    chart.figure.legend(handles, labels, loc="lower center", ncols=3, **options)
    room = 58 / (72 * chart.figure.get_figheight())
    return chart.svg(**{"bottom": room + 0.03 if chart.axes.get_xlabel() else room - 0.06, **margins})
