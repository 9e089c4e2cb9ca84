"""What the two workloads share: seeds whose parts are measured once, one JSON file a seed, and a unit of work."""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradex_fast import metrics
from gradex_fast.baselines.table import Row
from gradex_fast.cli import calm_libraries
from gradex_fast.costs import Cost
from gradex_fast.files import read_json, write_json
from gradex_fast.state import Run

RESULTS = Path(__file__).parents[1] / "results" / "fidelity"


@dataclass(frozen=True)
class Case:
    """A run that has come to its selection.

    Attributes:
        bad: bool [n], the sources that are known not to help. known: the seed's parts that were measured before.
    """

    run: Run
    bad: np.ndarray
    known: Mapping[str, Any] = field(default_factory=dict)


Figures = dict[str, Any]


def options(description: str, parts: Mapping[str, Any]) -> argparse.ArgumentParser:
    """The command line of a workload."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts), help="in this order")
    parser.add_argument("--work", type=Path, default=Path("runs") / "fidelity", help="run directories, to resume from")
    parser.add_argument("--results", type=Path, default=RESULTS, help="one JSON file a seed")
    parser.add_argument("--threads", type=int, default=1, help="the two workloads run side by side on two cores")
    parser.add_argument("--tiny", action="store_true", help="sizes at which the figures mean nothing")
    return parser


def measure_each(
    name: str,
    asked: argparse.Namespace,
    prepare: Callable[[int, Path], Case],
    parts: Mapping[str, Callable[[Case], Figures]],
) -> None:
    """Every part of every seed, part by part; what a seed's file holds already is not measured again."""
    calm_libraries()
    torch.set_num_threads(asked.threads)
    begun_at = commit()
    for part in asked.parts:
        for seed in asked.seeds:
            place = asked.results / f"{name}-{seed}.json"
            found = read_json(place) or {"seed": seed}
            if part in found:
                print(f"{name}, seed {seed}, {part}: known", flush=True)
                continue
            begin = time.monotonic()
            case = replace(prepare(seed, (asked.work / f"{name}-{seed}").resolve()), known=found)
            figures = parts[part](case)
            found[part] = {**figures, "seconds": time.monotonic() - begin, "commit": begun_at}
            write_json(place, found)
            print(f"{name}, seed {seed}, {part}: {found[part]['seconds']:.0f} s", flush=True)


def commit() -> str:
    """The checkout's commit; a plus where it was changed since."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def work(cost: Cost) -> int:
    """Tokens through the model, a backward pass counted as two forward ones (Kaplan et al. 2020, §2.1)."""
    return cost.forward_tokens + 2 * cost.backward_tokens


def spent(cost: Cost) -> Figures:
    """JSON values; null where nobody noted the seconds, or knows the FLOPs."""
    known = {"seconds": float(cost.seconds), "flops": float(cost.flops)}
    return {"work": work(cost), **{name: value if np.isfinite(value) else None for name, value in known.items()}}


def told(scores: np.ndarray, bad: np.ndarray) -> Figures:
    """AUC of telling bad sources from good ones by score, and the gap of their means.

    The gap is in pooled standard deviations within the two kinds, so that scores of any unit compare.
    """
    good, poor = scores[~bad], scores[bad]
    spread = np.sqrt((good.var(ddof=1) + poor.var(ddof=1)) / 2)
    gap = float((poor.mean() - good.mean()) / spread) if spread > 0 else 0.0
    return {"auc": metrics.auc(scores, bad), "gap": gap}


def separation(rows: Sequence[Row], bad: np.ndarray) -> dict[str, Figures]:
    """By rival, `told` and the scores."""
    return {row.name: {**told(row.scores, bad), "scores": row.scores.tolist()} for row in rows}
