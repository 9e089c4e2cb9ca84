"""Reads the seeds' files and works out what tables and figures share: means with intervals, and what was aimed at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from gradex_fast import metrics
from gradex_fast.files import read_json

Seeds = list[dict[str, Any]]


def read(results: Path, name: str) -> Seeds:
    """What is there of a workload, by seed."""
    return sorted((read_json(path) for path in results.glob(f"{name}-*.json")), key=lambda one: one["seed"])


def of(seeds: Seeds, *keys: str) -> list[Any]:
    """A figure of every seed that has it."""
    found = []
    for value in seeds:
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found.append(value)
    return found


def mean(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval (Student's t); NaN for a single value."""
    count = len(values)
    if count < 2:
        return float(np.mean(values)) if count else float("nan"), float("nan")
    return float(np.mean(values)), float(student.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))


def accuracies(seeds: Seeds) -> dict[str, list[float]]:
    """By method: share of test rows that the final model has right; real forward selection where it was run."""
    found = {}
    for part in ("rivals", "greedy", "even"):
        known = of(seeds, part, "finals")
        found |= {name: of(known, name, "test_exact_match") for name in (known[0] if known else ())}
    real = of(seeds, "forward", "final", "test_exact_match")
    return found | ({"forward, real fine-tuning": real} if real else {})


def lead(seeds: Seeds, rival: str) -> list[float]:
    """By seed, points of test accuracy by which GRADEX's ensemble is above a rival."""
    finals = [one["rivals"]["finals"] | one.get("even", {}).get("finals", {}) for one in seeds if "rivals" in one]
    pairs = [pair for pair in finals if rival in pair]
    return [100 * (pair["gradex"]["test_exact_match"] - pair[rival]["test_exact_match"]) for pair in pairs]


def behind_real(seeds: Seeds) -> list[float]:
    """The same, real forward selection's above GRADEX's."""
    both = [one for one in seeds if "forward" in one and "rivals" in one]
    key = "test_exact_match"
    return [100 * (one["forward"]["final"][key] - one["rivals"]["finals"]["gradex"][key]) for one in both]


def savings(seeds: Seeds, unit: str) -> dict[str, list[float]]:
    """How many times the work or seconds of GRADEX real searches take, the final training left out of both.

    Ensembles were counted, not run: their seconds are those of real forward selection for the same work.
    """
    found: dict[str, list[float]] = {}
    for one in (one for one in seeds if "rivals" in one):
        mine, real = one["rivals"]["costs"]["gradex"][unit], one.get("forward", {}).get("cost")
        known = real is not None and real[unit] is not None  # seconds of a busy machine are not kept
        if known:
            found.setdefault("forward", []).append(real[unit] / mine)
        rate = 1.0 if unit == "work" else real[unit] / real["work"] if known else float("nan")
        for count, amount in one["rivals"]["ensemble"].items():
            if np.isfinite(rate):
                found.setdefault(f"ensemble of {count}", []).append(rate * amount / mine)
    return found


def calibrated(seed: Mapping[str, Any]) -> np.ndarray:
    """f̂ of the anchors of a seed, each by the line through the others."""
    return metrics.leave_one_out(np.array(seed["truth"]["estimate"]), np.array(seed["truth"]["truth"]))
