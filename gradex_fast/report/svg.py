"""A matplotlib figure as SVG inside a page: the page's colours and fonts, names of its own, text from data escaped."""

from __future__ import annotations

import io
import re

from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, SOFT, LINE, PAPER, KEPT, LEFT, MARK = (f"#00000{digit}" for digit in range(1, 8))
"""Stand for the page's colours, which are not known before it is shown: light or dark."""

_VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", PAPER: "paper", KEPT: "kept", LEFT: "left", MARK: "mark"}

STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "gradex_fast",  # the same figure makes the same file
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-5, 6),
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 6,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
}
"""matplotlib's options while figures are drawn and saved."""

_NOTHING = dict.fromkeys(("Creator", "Date", "Format", "Type"))


class Chart:
    """A figure 360 px wide: as wide as a telephone's page, and larger where there is room.

    Text from data never reaches matplotlib, which has neither all its letters nor its writing from the right: `text`
    gives a stand-in, and the page the text itself.
    """

    def __init__(self, name: str, label: str, height: float = 250) -> None:
        self.figure = Figure(figsize=(5, height / 72), facecolor="none")
        self.axes: Axes = self.figure.subplots()
        self._name, self._label, self._texts, self._titles = name, label, [], {}

    def text(self, content: str) -> str:
        self._texts.append(content)
        return f"@{len(self._texts) - 1}@"

    def title(self, content: str) -> str:
        """The id to give to what shows this text when it is pointed at."""
        name = f"t{len(self._titles)}"
        self._titles[name] = content
        return name

    def svg(self, **margins: float) -> Markup:
        """Of the figure with these margins, as `Figure.subplots_adjust` takes them."""
        self.figure.subplots_adjust(**{"left": 0.16, "right": 0.97, "top": 0.96, "bottom": 0.19, **margins})
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", transparent=True, metadata=_NOTHING)
        return Markup(self._embedded(buffer.getvalue()))

    def _embedded(self, text: str) -> str:
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
        text = re.sub(r' (xmlns(:\w+)?|version)="[^"]*"', "", text)
        text = re.sub(r'^<svg[^>]*?viewBox="([^"]*)"[^>]*>', self._opening, text)
        text = text.replace("xlink:href", "href")
        text = re.sub(r'\bid="', f'id="{self._name}-', text)
        text = re.sub(r'(url\(|href=")#', rf"\1#{self._name}-", text)
        text = re.sub("#00000[1-7]", lambda found: f"var(--{_VARIABLES[found[0]]})", text)
        text = re.sub(r" ?font-family: [^;\"]*;?", "", text)
        text = re.sub(r"\n\s*", "\n", text)
        return self._named(text)

    def _opening(self, found: re.Match) -> str:
        return f'<svg class="figure" role="img" aria-label="{escape(self._label)}" viewBox="{found[1]}">'

    def _named(self, text: str) -> str:
        """With the escaped text from data in place of its stand-ins, in one pass: it may look like one itself."""

        def content(found: re.Match) -> str:
            if found["title"]:
                return f"{found[0]}<title>{escape(self._titles[found['title']])}</title>"
            return f">{escape(self._texts[int(found['text'])])}<"

        return re.sub(rf'<g id="{self._name}-(?P<title>t\d+)">|>@(?P<text>\d+)@<', content, text)
