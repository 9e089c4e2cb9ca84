"""The figures of a diagnosis, by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradex_fast.diagnose.output import TITLES
from gradex_fast.diagnose.part import Part, Row
from gradex_fast.files import write_atomically


def write(folder: Path, parts: Mapping[str, Part]) -> list[Path]:
    """NAME.png of every part that has rows.

    Raises:
        GradexError: a file cannot be written.
    """
    written = []
    for name, part in parts.items():
        if part.rows:
            figure = Figure(figsize=(6.4, 4.8), layout="constrained")
            axes = figure.subplots()
            axes.set_title(TITLES[name], fontsize="medium")
            DRAW[name](axes, part)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=150)
            write_atomically(folder / f"{name}.png", buffer.getvalue())
            written.append(folder / f"{name}.png")
    return written


def _rrss(axes: Axes, part: Part) -> None:
    styles = {"rrss": "-", "rrss_sketched": "--", "rrss_constant": ":"}
    labels = {"rrss": "", "rrss_sketched": ", sketched", "rrss_constant": ", order 0"}
    for index, (kind, rows) in enumerate(_by(part.summary, "direction").items()):
        for figure, style in styles.items():
            line = [100 * row["distance"] for row in rows], [row[figure] for row in rows]
            axes.plot(*line, style, color=f"C{index}", marker=".", label=kind + labels[figure])
    axes.set(xscale="log", yscale="log", xlabel="|Δ| / |θ*|, %", ylabel="Σ (h - ĥ)² / Σ h²")
    axes.legend(fontsize="x-small", ncols=3)


def _truth(axes: Axes, part: Part) -> None:
    for kind, rows in _by(part.rows, "kind").items():
        label = "forward path" if kind == "path" else "random subsets"
        axes.plot([row["calibrated"] for row in rows], [row["truth"] for row in rows], "o", label=label)
    axes.axline((part.rows[0]["truth"],) * 2, slope=1, color="0.7", zorder=0)
    axes.set(xlabel="f̂, calibrated on the other random subsets (nats)", ylabel="f, fine-tuned for real (nats)")
    axes.legend()


def _dim(axes: Axes, part: Part) -> None:
    _errors(axes, "", "dim", part.rows, "C0")
    _constant(axes, part)
    axes.set(xscale="log", yscale="log", xlabel="d", ylabel="Σ (f̂ - f)² / Σ f²")
    axes.set_xticks([row["dim"] for row in part.rows], [str(row["dim"]) for row in part.rows])
    axes.set_xticks([], minor=True)
    axes.legend()


def _ridge(axes: Axes, part: Part) -> None:
    label = "margin" if "margin" in part.rows[0] else "estimate"
    for index, (kind, rows) in enumerate(_by(part.rows, label).items()):
        _errors(axes, f"{kind}, ", "ridge", rows, f"C{index}")
    _constant(axes, part)
    axes.set(xscale="log", yscale="log", xlabel="ridge", ylabel="Σ (f̂ - f)² / Σ f²")
    axes.legend(fontsize="small")


def _errors(axes: Axes, name: str, x: str, rows: list[Row], color: str) -> None:
    places = [row[x] for row in rows]
    for figure, style in {"relative_error": "--", "calibrated_error": "-"}.items():
        label = f"{name}{figure.removesuffix('_error').replace('relative', 'raw')}"
        axes.plot(places, [row[figure] for row in rows], style, color=color, marker=".", label=label)


def _constant(axes: Axes, part: Part) -> None:
    if part.rows[0]["constant_error"] is not None:
        axes.axhline(part.rows[0]["constant_error"], color="0.5", ls=":", label="constant predictor")


def _by(rows: list[Row], key: str) -> dict[str, list[Row]]:
    return {value: [row for row in rows if row[key] == value] for value in dict.fromkeys(row[key] for row in rows)}


DRAW = {"rrss": _rrss, "truth": _truth, "dim": _dim, "ridge": _ridge, "curvature": _ridge}
