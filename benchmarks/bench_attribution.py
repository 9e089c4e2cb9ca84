"""Attribution features of one batch: `Sketcher` beside traker's `TRAKer`, in one run on one machine.

    python benchmarks/bench_attribution.py --out benchmarks/results/attribution.json
    python benchmarks/bench_attribution.py --quick       # a smoke run on a tiny model; its figures mean nothing

The case of `bench_sketch.py`: GPT-2 (124M) with LoRA of rank 16, 8 rows of 128 tokens, float32, d = 512, on the CPU.
Passes take turns, medians are compared. traker is needed (pip install traker); its CUDA projector is not. `features`
says how far a way's are from `Sketcher`'s: with our P they are the same numbers, with traker's own only their inner
products can be compared, to within what a projection to d numbers leaves. "As it comes" TRAKer takes gradients by all
parameters, about 11 GB. In a checkout that is not the installed one, set PYTHONPATH to it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import engine_cases
import engine_measures
import numpy as np
import rival_trak
import solve_report
import torch
from bench_sketch import require_own_package
from torch import nn
from trak.projectors import AbstractProjector

from gradex_fast.batch import Batch
from gradex_fast.bench.pass_cases import plain_pass
from gradex_fast.cli import calm_libraries
from gradex_fast.modules import trainable
from gradex_fast.sketch import Sketcher

TIMES_FASTER = 2.0
"""Than TRAKer with its own projector, at least; the way that keeps all of P (1.8 GB at d = 512) is there to compare."""

OURS, ALL = -1, 0


class Way(NamedTuple):
    """How TRAKer goes about it. block: columns of P that are drawn at a time, or `ALL` once and kept, or `OURS`."""

    block: int
    adapters_only: bool


WAYS = {
    "TRAKer, as it comes": Way(100, adapters_only=False),
    "TRAKer, LoRA's gradients only": Way(100, adapters_only=True),
    "TRAKer, LoRA's gradients only, P kept": Way(ALL, adapters_only=True),
    "TRAKer, LoRA's gradients only, our P": Way(OURS, adapters_only=True),
}
HELD_TO = ("TRAKer, as it comes", "TRAKer, LoRA's gradients only")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5, help="turns of every way, at least 5 for figures to keep")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a tiny model, one turn")
    parser.add_argument("--out", type=Path, help="JSON file to write; Markdown goes beside it")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.dim = 1, 32
    return options


def measured(options: argparse.Namespace) -> list[dict]:
    """A row for the plain pass, for `Sketcher` and for every way of TRAKer."""
    case = engine_cases.LORA.tiny() if options.quick else engine_cases.LORA
    model, batch = engine_cases.make_model(case), engine_cases.make_batch(case)
    sketcher, pair = Sketcher(model, dim=options.dim), (batch["input_ids"], batch["labels"])
    rival = engine_cases.make_model(case)
    rival.base_model.model.set_attn_implementation("eager")  # vmap has no rule for fused attention
    passes = {"plain": partial(_plain, model, batch), "gradex_fast": partial(sketcher, batch)}
    with TemporaryDirectory() as folder:
        for way in options.ways:
            projector = _projection(rival, options.dim, WAYS[way].block)
            own, adapters_only = Path(folder) / str(len(passes)), WAYS[way].adapters_only
            traker = rival_trak.language_traker(rival, case.rows, projector, own, adapters_only=adapters_only)
            passes[way] = partial(rival_trak.featurise, traker, pair)
        spent = engine_measures.seconds(passes, options.repeats)
        found = {way: passes[way]()[0] for way in options.ways}
    size = sum(parameter.numel() for parameter in trainable(model).values())
    features = {way: np.sqrt(size) * each for way, each in found.items()}  # traker divides by √p
    medians = {way: float(np.median(each)) for way, each in spent.items()}
    return _rows(medians, features, sketcher(batch).g, options.quick)


def _rows(medians: Mapping[str, float], features: Mapping[str, np.ndarray], own: np.ndarray, quick: bool) -> list[dict]:
    rows = []
    for way, median in medians.items():
        times = {"times plain": median / medians["plain"], "times ours": median / medians["gradex_fast"]}
        apart = _apart(features[way], own, WAYS[way].block == OURS) if way in features else None
        least = None if quick or way not in HELD_TO else TIMES_FASTER
        reached = None if least is None else times["times ours"] >= least
        rows.append({"way": way, "median s": median, **times, "features": apart, "at least": least, "reached": reached})
    return rows


def _apart(features: np.ndarray, own: np.ndarray, same: bool) -> float:
    """Relative distance of features Pᵀ∇h, with our P (`same`: divided by √d already) or of their inner products."""
    one, other = (features, own) if same else (features @ features.T / own.shape[1], own @ own.T)
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def _projection(model: nn.Module, dim: int, block: int) -> AbstractProjector:
    return rival_trak.OurProjection(dim) if block == OURS else rival_trak.basic_projection(model, dim, block or dim)


def _plain(model: nn.Module, batch: Batch) -> None:
    plain_pass(model, batch)
    model.zero_grad(set_to_none=True)


def main() -> None:
    options = parse()
    require_own_package()
    calm_libraries()
    torch.set_num_threads(options.threads)
    title = f"One batch, d = {options.dim}"
    rows = measured(options)
    for row in rows:
        solve_report.print_row(row)
    if options.out:
        chosen = {"title": "Attribution features", "threads": options.threads, "repeats": options.repeats}
        about = solve_report.provenance() | chosen | {"quick": options.quick, "tables": {title: rows}}
        about["versions"]["traker"] = version("traker")
        options.out.write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")
        options.out.with_suffix(".md").write_text(solve_report.markdown(about))


if __name__ == "__main__":
    main()
