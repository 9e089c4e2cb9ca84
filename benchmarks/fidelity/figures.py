"""Figures of what the two workloads measured, by matplotlib, as SVG.

python benchmarks/fidelity/figures.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from common import RESULTS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measured import Seeds, accuracies, calibrated, mean, of, read


def truth(axes: Axes, seeds: Seeds) -> None:
    """f̂ against f, subsets of noisy addition."""
    for one in seeds:
        axes.plot(calibrated(one), one["truth"]["truth"], ".", label=f"seed {one['seed']}")
    axes.axline((one["truth"]["truth"][0],) * 2, slope=1, color="0.7", zorder=0)
    axes.set(xlabel="f̂, by the line through the other subsets (nats)", ylabel="f, fine-tuned from θ* (nats)")
    axes.legend(fontsize="small")


def separation(axes: Axes, seeds: Seeds) -> None:
    """Sources' scores by rival, of all seeds (Figure 2 of the paper)."""
    known = of(seeds, "rivals", "separation")
    for place, rival in enumerate(known[0]):
        for one, bad in zip(known, of(seeds, "rivals", "bad"), strict=True):
            scores, bad = np.array(one[rival]["scores"]), np.array(bad)
            scores = (scores - scores.mean()) / (scores.std() or 1)
            for kind, color, shift in ((~bad, "C0", -0.12), (bad, "C3", 0.12)):
                axes.plot(np.full(kind.sum(), place + shift), scores[kind], "_", color=color, alpha=0.6)
    axes.set_xticks(range(len(known[0])), list(known[0]))
    axes.set(ylabel="score, standardised (blue: helps, red: does not)")


def finals(axes: Axes, seeds: Seeds) -> None:
    """Accuracy of final models with 95 % intervals."""
    found = {name: mean([100 * value for value in values]) for name, values in accuracies(seeds).items()}
    order = sorted(found, key=lambda name: found[name][0])
    axes.barh(
        order, [found[name][0] for name in order], xerr=[found[name][1] for name in order], color="C0", ecolor="0.3"
    )
    axes.set(xlabel="test accuracy of the final model, %, 95 % interval over seeds", xlim=(40, None))


def path(axes: Axes, seeds: Seeds) -> None:
    """f and f̂ along forward selection with real fine-tuning."""
    for index, one in enumerate(one for one in seeds if "forward" in one):
        steps = one["forward"]["path"]
        places, color = range(1, len(steps) + 1), f"C{index}"
        axes.plot(places, [s["f"] for s in steps], "-", marker=".", color=color, label=f"f, seed {one['seed']}")
        axes.plot(places, [s["estimate"] for s in steps], ":", marker=".", color=color)
    axes.set(xlabel="sources", ylabel="validation loss (nats); dotted: f̂, not calibrated")
    axes.legend(fontsize="small")


def rrss(axes: Axes, seeds: Seeds) -> None:
    """The first-order expansion, by distance from θ*."""
    for part, style in {"rrss": "-", "rrss_full": "--"}.items():
        for seed, rows in enumerate(of(seeds, part, "rows")):
            for index, kind in enumerate(dict.fromkeys(row["direction"] for row in rows)):
                line = [(100 * row["distance"], row["rrss"]) for row in rows if row["direction"] == kind]
                label = f"{kind}, {'LoRA' if part == 'rrss' else 'all parameters'}" if not seed else None
                axes.plot(*zip(*line, strict=True), style, marker=".", color=f"C{index}", label=label)
    axes.axhline(1e-3, color="0.5", ls=":")
    axes.set(xscale="log", yscale="log", xlabel="|Δ| / |θ*|, %", ylabel="Σ (h - ĥ)² / Σ h²")
    axes.legend(fontsize="x-small")


FIGURES = {
    "addition-truth": (truth, "addition", "truth"),
    "addition-separation": (separation, "addition", "rivals"),
    "addition-forward": (path, "addition", "forward"),
    "sentiment-separation": (separation, "sentiment", "rivals"),
    "sentiment-finals": (finals, "sentiment", "rivals"),
    "sentiment-forward": (path, "sentiment", "forward"),
    "sentiment-rrss": (rrss, "sentiment", "rrss"),
}
"""By file: what draws it, of which workload, and the part that must have been measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    folder = parser.parse_args().results
    matplotlib.rcParams["svg.hashsalt"] = "gradex_fast"  # the same figures make the same file
    for name, (draw, workload, part) in FIGURES.items():
        if seeds := [one for one in read(folder, workload) if part in one]:
            figure = Figure(figsize=(5.6, 3.8), layout="constrained")
            draw(figure.subplots(), seeds)
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            print(folder / f"{name}.svg")


if __name__ == "__main__":
    main()
