"""What the templates read: a summary, put in order, with what follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gradex_fast.report.text import finite
from gradex_fast.report.trust import notices, trust

Summary = Mapping[str, Any]

_FIGURES = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "relative_error": "relative error",
    "calibrated_error": "the same, calibrated",
    "constant_error": "the same, of a constant",
    "auc": "AUC of the scores",
}
_EFFECT = "what the source changes in the estimated loss of the chosen set"
_SCORE = {
    "ensemble": "the mean estimated loss of the sampled subsets that contain the source",
    "forward": _EFFECT,
    "backward": _EFFECT,
    "floating": _EFFECT,
}


def view_of(summary: Summary) -> dict[str, Any]:
    """The summary, its sources by score, and what the report says of them."""
    sources, final = summary["sources"], summary.get("final") or {}
    cost = summary.get("cost") or _only_seconds(summary.get("seconds") or {})
    metrics = summary.get("metrics") or {}
    scores = [source["score"] for source in sources if finite(source.get("score"))]
    spread = max(scores) - min(scores) if scores else 0.0
    return {
        **summary,
        "details": summary.get("details") or {},
        "notices": notices(summary),
        "trust": trust(summary),
        "cost": cost,
        "cost_rows": _cost_rows(cost) if cost else [],
        "score_meaning": score_meaning(summary),
        "ranked": sorted(sources, key=lambda s: s["score"] if finite(s.get("score")) else math.inf),
        "chosen": [source for source in sources if source["chosen"]],
        "has_truth": has(summary, "truth"),
        "has_origin": has(summary, "origin"),
        "has_cosine": has(summary, "cosine"),
        "places": min(8, max(3, math.ceil(2 - math.log10(spread)))) if spread > 0 else 4,
        "pairs": [p for p in summary.get("truth") or [] if finite(p["truth"]) and finite(p["estimate"])],
        "figures": [(k, label) for k, label in _FIGURES.items() if metrics.get(k) is not None],
        "final_columns": list(dict.fromkeys(column for row in final.values() for column in row)),
    }


def score_meaning(summary: Summary) -> str:
    """What a source's score is."""
    return _SCORE.get(summary.get("method", ""), "an estimated loss")


def has(summary: Summary, column: str) -> bool:
    """Whether any source has it."""
    return any(source.get(column) not in (None, "") for source in summary["sources"])


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
