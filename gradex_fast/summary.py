"""A run in numbers: the mapping that the report reads, and what the terminal shows of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradex_fast import metrics
from gradex_fast.accounts import account
from gradex_fast.clusters import origin
from gradex_fast.exhibits import curves, extreme_rows, source_map
from gradex_fast.files import read_json
from gradex_fast.outputs import in_names
from gradex_fast.report import terminal_table
from gradex_fast.state import Run
from gradex_fast.types import Source
from gradex_fast.units import count_text, duration
from gradex_fast.workspace import versions

if TYPE_CHECKING:
    from rich.console import Console


def rank_stability(run: Run) -> dict[str, float]:
    """How the ranks of up to 200 of the evaluated subsets hold at other ridges."""
    return run.estimator.rank_stability(run.selection.subsets[:200])


def summarise(run: Run, labels: Sequence[str] | None = None) -> dict[str, Any]:
    """The mapping that `report.write_report` reads."""
    estimator, selection = run.estimator, run.selection
    written = read_json(run.path / "selection.json")
    milliseconds = 1000 * written["seconds"] / max(1, written["subsets"])
    fit, mapped = estimator.calibration, source_map(run)
    cosines = [{"cosine": cosine} for cosine in mapped.pop("cosines")]
    return {
        "title": run.path.name,
        "method": run.recipe.select.method,
        "sources": [{**_source(run, index, labels), **near} for index, near in enumerate(cosines)],
        "clusters": _clusters(run),
        "target": {part: len(getattr(run.corpus, part).examples) for part in ("train", "validation", "test")},
        "target_rows": [_rows(part) for part in (run.corpus.train, run.corpus.validation, run.corpus.test)],
        "path": written["path"],
        "curves": curves(run),
        "details": in_names(selection.details, run.corpus.names),
        "others": {name: [run.corpus.names[i] for i in found.chosen] for name, found in run.others.items()},
        "estimate": {
            "ridge": estimator.ridge,
            "dim": estimator.train.g.shape[1],
            "margin": run.recipe.sketch.margin,
            "subsets": len(selection.subsets),
            "milliseconds": milliseconds,
            "rank_stability": run.stability,
            "calibration": None if fit is None else {"intercept": fit.intercept, "slope": fit.slope},
        },
        "truth": _truth(run),
        "map": mapped,
        "rows": extreme_rows(run),
        "final": {name: _final(note) for name, note in run.final.items()},
        "metrics": _metrics(run, labels, milliseconds),
        "seconds": dict(run.reporter.seconds),
        "cost": account(run),
        "warnings": list(run.warnings),
        "config": run.recipe.dump(),
        "versions": versions(),
        "seeds": {"seed": run.recipe.seed},
    }


def _source(run: Run, index: int, labels: Sequence[str] | None) -> dict[str, Any]:
    source, selection = run.corpus.sources[index], run.selection
    return {
        **_rows(source, cluster=bool(run.whole) and all(source is not one for one in run.whole)),
        "score": float(selection.scores[index]),
        "low": float(selection.low[index]),
        "high": float(selection.high[index]),
        "chosen": index in selection.chosen,
        "truth": labels[index] if labels else None,
    }


def _rows(source: Source, cluster: bool = False) -> dict[str, Any]:
    """Of a cluster: where its rows come from, in place of what was lost when they were read."""
    figures = {"name": source.name, "rows": len(source.examples), "tokens": source.tokens}
    if cluster:
        return figures | {"origin": origin(source), "truncated": None, "dropped": None, "overlapping": None}
    lost = {"truncated": source.truncated, "dropped": source.dropped, "overlapping": source.overlapping}
    return figures | lost


def _clusters(run: Run) -> dict[str, Any] | None:
    if not run.whole:
        return None
    return {"method": run.recipe.clusters.method, "sources": [_rows(source) for source in run.whole]}


def _truth(run: Run) -> list[dict[str, Any]]:
    if run.truth is None:
        return []
    found, names = run.estimator.estimate(run.truths), run.corpus.names
    subsets = [[names[i] for i in np.flatnonzero(mask[: len(names)])] for mask in run.truths]
    columns = zip(found.loss.tolist(), found.low.tolist(), found.high.tolist(), run.truth.tolist(), strict=True)
    rows = [dict(zip(("estimate", "low", "high", "truth"), row, strict=True)) for row in columns]
    return [{"subset": subset, **row} for subset, row in zip(subsets, rows, strict=True)]


def _final(note: dict[str, Any]) -> dict[str, Any]:
    return {"loss": note["validation_loss"], **{k: v for k, v in note.items() if k not in ("data", "validation_loss")}}


def _metrics(run: Run, labels: Sequence[str] | None, milliseconds: float) -> dict[str, Any]:
    spent = account(run)
    figures: dict[str, Any] = {
        "seconds": sum(run.reporter.seconds.values()),
        "cost": {part: spent[part] for part in ("choice", "together")},
        "estimate_milliseconds": milliseconds,
        "final_loss": {name: note["validation_loss"] for name, note in run.final.items()},
    }
    if labels:
        noisy = np.array([label != "clean" for label in labels])
        figures["auc"] = metrics.auc(run.selection.scores[: len(labels)], noisy)
    return figures | (_fidelity(run) if run.truth is not None and len(run.truth) >= 3 else {})


def _fidelity(run: Run) -> dict[str, float]:
    """How the uncalibrated f̂ follows f over the subsets that were fine-tuned for real."""
    estimate, truth = run.estimator.at_ridge(run.estimator.ridge).estimate(run.truths).loss, run.truth
    notes = [run.workspace.done(f"anchor {index + 1}") for index in range(len(truth))]
    seconds = float(np.mean([note["seconds"] for note in notes]))
    return {**metrics.agreement(estimate, truth), "finetune_seconds": seconds}


def print_summary(run: Run, console: Console) -> None:
    """The table of sources, how far to trust it, what it bought and where the report lies."""
    found, figures = run.summary, run.summary["metrics"]
    console.print(terminal_table(found))
    for line in (*_trust(figures), *_chosen(found), *_bought(found["final"]), *_spent(figures["cost"])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"report: {run.path / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def _trust(figures: dict[str, Any]) -> list[str]:
    lines = [f"{figures['estimate_milliseconds']:.2f} ms per estimated subset"]
    if "finetune_seconds" in figures:
        lines[0] += f", {figures['finetune_seconds']:.1f} s per fine-tuned one"
        lines.append(
            f"estimate against truth: Spearman {figures['spearman']:.2f}, Pearson {figures['pearson']:.2f}, "
            f"relative error {figures['relative_error']:.1e} (calibrated, left out {figures['calibrated_error']:.1e}; "
            f"a constant {figures['constant_error']:.1e})"
        )
    if "auc" in figures:
        lines.append(f"AUC of telling noisy sources from clean ones by score: {figures['auc']:.3f}")
    return lines


def _chosen(found: dict[str, Any]) -> list[str]:
    """One line for each method's choice, with what the sources truly are where that is known."""
    labels = {source["name"]: source["truth"] for source in found["sources"]}
    mine = [source["name"] for source in found["sources"] if source["chosen"]]
    return [
        f"{name} selection keeps {len(names)} of {len(labels)} sources{_counts([labels[n] for n in names])}"
        for name, names in {found["method"]: mine, **found["others"]}.items()
    ]


def _counts(labels: Sequence[str | None]) -> str:
    known = sorted({label for label in labels if label})
    return ": " + ", ".join(f"{labels.count(label)} {label}" for label in known) if known else ""


def _bought(final: dict[str, dict[str, Any]]) -> list[str]:
    """One line for each model trained from the pretrained one, best first."""
    lines = ["fine-tuned on        validation loss   exact match"]
    for name, note in sorted(final.items(), key=lambda pair: pair[1]["loss"]):
        lines.append(f"  {name:<18} {note['loss']:>15.4f} {note['validation_exact_match']:>12.1%}")
    return lines


def _spent(cost: dict[str, dict[str, Any]]) -> list[str]:
    return [
        f"{name}: {part['forward_rows']:,} rows forward, {part['backward_rows']:,} backward, "
        f"{count_text(part['flops'])} FLOPs, {duration(part['seconds'], 1)}"
        for name, part in {"cost of the choice": cost["choice"], "with all trainings": cost["together"]}.items()
    ]
