"""How sure a choice is, and what may be wrong with its data: in sentences, from the figures of its summary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from gradex_fast.report.text import clipped, finite, number

STABLE = 0.8
"""A rank correlation from here on counts as stable."""

FEW = 6
"""Of fewer fine-tuned subsets no good result says much."""

Summary = Mapping[str, Any]


class Fact(NamedTuple):
    """`good`: whether it speaks for the choice; None: nothing is known."""

    text: str
    good: bool | None


def trust(summary: Summary) -> list[Fact]:
    """What speaks for and against the choice, the strongest evidence first."""
    parts = (_anchors, _stability, _convergence, _border, _effects)
    return [fact for part in parts for fact in part(summary)]


def notices(summary: Summary) -> list[str]:
    """The run's warnings, then what happened to its rows: leakage and cuts."""
    return [*(summary.get("warnings") or []), *_leakage(summary), *_cuts(summary)]


def _anchors(summary: Summary) -> Iterator[Fact]:
    metrics, pairs = summary.get("metrics") or {}, summary.get("truth") or []
    if not pairs:
        if summary.get("estimate"):
            yield Fact("No subset was fine-tuned for real: nothing says how close the estimates are.", None)
        return
    rho, error, constant = (metrics.get(key) for key in ("spearman", "calibrated_error", "constant_error"))
    count = f"{'Only ' if len(pairs) < FEW else ''}{len(pairs)} subsets were fine-tuned for real"
    if not (finite(rho) and finite(error) and finite(constant)):
        yield Fact(f"{count}: that does not say how close the estimates are.", None)
        return
    better = error < constant
    comparison = f"{number(constant / error, 2)} times smaller than" if better else "no smaller than"
    text = f"{count}: the estimates rank them with Spearman {rho:.2f}, and their error, each left out of the "
    verdict = better and rho >= STABLE
    yield Fact(f"{text}calibration, is {comparison} a constant's.", None if verdict and len(pairs) < FEW else verdict)


def _stability(summary: Summary) -> Iterator[Fact]:
    known = [rho for rho in ((summary.get("estimate") or {}).get("rank_stability") or {}).values() if finite(rho)]
    if known:
        good = min(known) >= STABLE
        verb = "keep their order" if good else "change their order"
        ridges = "with ten times more and ten times less regularisation" if len(known) == 2 else "at other ridges"
        numbers = " and ".join(f"{rho:.2f}" for rho in known)
        yield Fact(f"The subsets {verb} {ridges} (Spearman {numbers}).", good)


def _convergence(summary: Summary) -> Iterator[Fact]:
    rows = (summary.get("details") or {}).get("convergence") or []
    if rows and finite(rows[-1]["spearman"]):
        rho = rows[-1]["spearman"]
        text = f"From {rows[-1]['subsets']:,} subsets, half of all, the sources have the same order as from all"
        yield Fact(f"{text}: Spearman {rho:.2f}.", rho >= STABLE)


def _border(summary: Summary) -> Iterator[Fact]:
    """Of the ensemble, whose chosen sources are those of lowest score."""
    kept, left = _by_choice(summary)
    if summary.get("method") != "ensemble" or not (kept and left):
        return
    last, first = max(kept, key=lambda s: s["score"]), min(left, key=lambda s: s["score"])
    if last["score"] > first["score"]:
        return
    border = (last["score"] + first["score"]) / 2
    over = sum(source["low"] < border < source["high"] for source in (*kept, *left))
    gap = f"The last source that is kept and the first that is not are {number(first['score'] - last['score'], 2)} nats"
    if over:
        yield Fact(f"{gap} apart; intervals that reach over the border between them: {over:,}.", False)
    else:
        yield Fact(f"{gap} apart, and no interval reaches over the border between them.", True)


def _effects(summary: Summary) -> Iterator[Fact]:
    """Of a greedy search, whose scores are changes of the estimated loss."""
    kept, _ = _by_choice(summary)
    if summary.get("method") in (None, "ensemble") or not kept:
        return
    sure = sum(source["high"] < 0 for source in kept)
    text = f"Of {len(kept):,} chosen sources {sure:,} lower the estimated loss beyond doubt (95 %)"
    yield Fact(f"{text}.", sure >= len(kept) / 2)


def _by_choice(summary: Summary) -> tuple[list[Summary], list[Summary]]:
    """Sources with an interval: the chosen, and the others."""
    known = [s for s in summary["sources"] if all(finite(s.get(key)) for key in ("score", "low", "high"))]
    return [source for source in known if source["chosen"]], [source for source in known if not source["chosen"]]


def _leakage(summary: Summary) -> Iterator[str]:
    found = _lost(summary, "overlapping")
    if found:
        yield (
            f"leakage: {sum(found.values()):,} training rows equal a validation or test row and were left out "
            f"({_most(found)})"
        )


def _cuts(summary: Summary) -> Iterator[str]:
    cut, dropped = _lost(summary, "truncated"), _lost(summary, "dropped")
    rows = sum(source["rows"] or 0 for source in _read(summary))
    if cut:
        share = f" of {rows:,}" if rows else ""
        yield f"{sum(cut.values()):,}{share} rows are longer than data.max_length and were cut ({_most(cut)})"
    if dropped:
        count = f"{sum(dropped.values()):,} rows"
        yield f"{count} have no token with a loss within data.max_length and were left out ({_most(dropped)})"


def _read(summary: Summary) -> list[Summary]:
    """The sources as they were read (of clusters, those that were cut into them), and the target's parts."""
    clusters = summary.get("clusters") or {}
    return [*(clusters.get("sources") or summary["sources"]), *(summary.get("target_rows") or [])]


def _lost(summary: Summary, column: str) -> dict[str, int]:
    return {source["name"]: source[column] for source in _read(summary) if source.get(column)}


def _most(found: Mapping[str, int]) -> str:
    name = max(found, key=lambda name: found[name])
    shown = clipped(name, 60)
    return f"most in {shown}: {found[name]:,}" if len(found) > 1 else f"all in {shown}"
