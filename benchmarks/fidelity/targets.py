"""What was aimed at, and what came out: one line a target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from measured import Seeds, behind_real, lead, mean, of, savings

Line = dict[str, Any]
SEEDS = 5
"""A figure over fewer is not the last word."""
RIVALS = ("all", "random", "dsir", "deft", "less", "dsir, as many", "deft, as many", "less, as many")


def targets(addition: Seeds, sentiment: Seeds) -> list[Line]:
    """What issue and paper ask for, and what came out."""
    return [
        *_addition(addition),
        *_sentiment(sentiment),
        *_greedy("addition", addition),
        *_greedy("sentiment", sentiment),
    ]


def _line(workload: str, measure: str, wanted: str, values: list[float], met: bool, form: str = "{:.3g}") -> Line:
    middle, half = mean(values)
    shown = form.format(middle) + (f" ± {form.format(half)}" if np.isfinite(half) else "")
    return {
        "workload": workload,
        "measure": measure,
        "must reach": wanted,
        "mean, 95 %": shown,
        "seeds": len(values),
        "met": ("yes" if met else "no") + ("" if len(values) >= SEEDS else ", so far"),
    }


def _addition(seeds: Seeds) -> Iterator[Line]:
    if spearman := of(seeds, "truth", "spearman"):
        yield _line("addition", "Spearman of f̂ and f", "≥ 0.90", spearman, np.mean(spearman) >= 0.9)
        pairs = zip(of(seeds, "truth", "calibrated_error"), of(seeds, "truth", "constant_error"), strict=True)
        ratio = [a / b for a, b in pairs]
        yield _line("addition", "relative error, calibrated / constant", "≤ 0.2", ratio, np.mean(ratio) <= 0.2)
    if auc := of(seeds, "rivals", "separation", "gradex", "auc"):
        yield _line("addition", "AUC of noisy groups", "1.00", auc, min(auc) == 1, "{:.3f}")
        mine = of(seeds, "rivals", "separation", "gradex", "gap")
        for rival in ("dsir", "deft", "less"):
            ahead = np.subtract(mine, of(seeds, "rivals", "separation", rival, "gap")).tolist()
            yield _line("addition", f"gap above {rival}'s, standard deviations", "> 0", ahead, np.mean(ahead) > 0)


def _sentiment(seeds: Seeds) -> Iterator[Line]:
    if of(seeds, "rivals"):
        for rival in RIVALS:
            if points := lead(seeds, rival):
                yield _line("sentiment", f"test points above {rival}", "≥ 2", points, np.mean(points) >= 2, "{:.1f}")
    if behind := behind_real(seeds):
        yield _line("sentiment", "points behind real forward selection", "≤ 1", behind, np.mean(behind) <= 1, "{:.1f}")
    for unit in ("work", "seconds"):
        for search, times in savings(seeds, unit).items():
            least = 30 if search == "forward" else 44
            named = f"{unit}: real {search} / GRADEX"
            yield _line("sentiment", named, f"≥ {least}", times, np.mean(times) >= least, "{:.0f}")
    for part, named in {"rrss": "LoRA", "rrss_full": "all parameters"}.items():
        worst = [max(row["rrss"] for row in rows if row["distance"] <= 0.0015001) for rows in of(seeds, part, "rows")]
        if worst:
            yield _line("sentiment", f"RRSS within 0.15 %, {named}", "≤ 1e-3", worst, max(worst) <= 1e-3, "{:.1e}")


def _greedy(name: str, seeds: Seeds) -> Iterator[Line]:
    found = of(seeds, "forward")
    if found:
        same = [float(one["same_first"]) for one in found]
        yield _line(name, "same first choice by f̂ and f", "all", same, min(same) == 1, "{:.2f}")
        for kind, label in {"estimated": "forward by f̂", "ensemble": "ensemble by f̂"}.items():
            above = [100 * (one[kind]["f"] / one["real"]["f"] - 1) for one in found]
            wanted = "≤ 1" if kind == "estimated" else ""
            yield _line(
                name, f"f of the chosen set above f's own, %, {label}", wanted, above, np.mean(above) <= 1, "{:.1f}"
            )
