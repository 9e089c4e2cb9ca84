"""What `bench_sketch.py` measures, a function for each table: rows of figures beside those that must be reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import engine_cases
import engine_memory
import numpy as np
import torch
from engine_cases import COMPLETIONS, FULL, LONGEST, LORA, Case
from torch.nn.functional import pad

from gradex_fast import kernels
from gradex_fast.batch import collate
from gradex_fast.bench.pass_cases import plain_pass
from gradex_fast.bench.turns import in_rounds
from gradex_fast.sketch import Sketcher, sketch_examples
from gradex_fast.types import UNSUPERVISED

RATIOS = {
    ("LoRA", 512, "gaussian"): 1.05,
    ("LoRA", 100, "gaussian"): 1.02,
    ("full", 100, "rademacher"): 1.5,
    ("full", 100, "gaussian"): 2.3,
    ("completions", 100, "gaussian"): 0.9,
}
"""A sketch pass's time against a plain pass's, at most: case, d, distribution."""

EXTRA_MIB = {"LoRA": 64, "full": 128}
"""A sketch pass's memory beyond a plain pass's, at most."""

TIMES_PADDED = 3.0
"""Rows a second against those of batches that are all padded to the longest row, at least."""

Row = dict[str, Any]


def seconds(passes: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Of every pass, `repeats` times in turns, by the clock on the wall."""
    place = "cuda" if torch.cuda.is_available() else "cpu"
    return in_rounds({name: [run] for name, run in passes.items()}, place, rounds=repeats, burst=0.0, wall=True)


def sketch_against_plain(options) -> list[Row]:
    """Every case, d and distribution beside the plain pass of the same batch."""
    rows = []
    for case, dims in ((LORA, (512, 100)), (FULL, (100,)), (COMPLETIONS, (100,))):
        if case.name not in options.cases:
            continue
        case = _fitted(case, options)
        model, batch = engine_cases.make_model(case), engine_cases.make_batch(case)
        plans = {f"{d} {kind}": (d, kind) for d in dims for kind in kernels.DISTRIBUTIONS}
        sketchers = {name: Sketcher(model, dim=d, distribution=kind) for name, (d, kind) in plans.items()}
        passes = {"plain": partial(plain_pass, model, batch)}
        passes |= {name: partial(sketcher, batch) for name, sketcher in sketchers.items()}
        spent = seconds(passes, options.repeats)
        for name, (dim, kind) in plans.items():
            target = None if options.quick else RATIOS.get((case.name, dim, kind))
            rows.append(
                {"case": case.name, "d": dim, "distribution": kind, **_ratio(spent["plain"], spent[name], target)}
            )
    return rows


def rivals(options) -> list[Row]:
    """The same LoRA batch by a pass for each sample, and by hooks with [n, p] gradients; P stored, d = 100."""
    case = _fitted(LORA, options)
    model, batch = engine_cases.make_model(case), engine_cases.make_batch(case)
    stored = engine_cases.StoredProjection(model, 100)
    passes = {
        "plain": partial(plain_pass, model, batch),
        "gradex_fast": partial(Sketcher(model, dim=100), batch),
        "a pass for each sample": partial(engine_cases.one_by_one, model, batch, stored),
        "hooks": partial(engine_cases.with_hooks, model, batch, stored),
    }
    found = seconds(passes, options.repeats)
    held = {"a pass for each sample": stored.bytes / 2**20, "hooks": stored.bytes / 2**20}
    plain = float(np.median(found["plain"]))
    medians = {name: float(np.median(spent)) for name, spent in found.items()}
    return [
        {"way": name, "median s": each, "times plain": each / plain, "P stored MiB": held.get(name, 0.0)}
        for name, each in medians.items()
    ]


def lengths(options) -> list[Row]:
    """Rows a second of `sketch_examples` on lengths like Alpaca's, and with every row padded to the longest.

    Padded batches are all of one shape: two of them have the rate of all.
    """
    case, scale = _fitted(LORA, options), 1 / 16 if options.quick else 1.0
    examples, tokens = engine_cases.rows_like_alpaca(options.rows, scale), round(scale * options.batch_tokens)
    longest = round(scale * LONGEST)
    some = examples[: 2 * max(1, tokens // longest)]
    sketcher = Sketcher(engine_cases.make_model(case), dim=100)
    sketch = partial(sketch_examples, sketcher, examples, pad_id=0, batch_tokens=tokens)
    passes = {"by length": sketch, "padded": partial(_padded, sketcher, some, tokens, longest)}
    spent = {name: np.median(each) for name, each in seconds(passes, options.repeats).items()}
    rates = {"by length": len(examples) / spent["by length"], "padded": len(some) / spent["padded"]}
    found = float(rates["by length"] / rates["padded"])
    total = sum(len(example.input_ids) for example in examples)
    shape = {"rows": len(examples), "mean tokens": total / len(examples), "longest": longest, "batch tokens": tokens}
    speed = {f"{name}, rows/s": float(rate) for name, rate in rates.items()}
    target = None if options.quick else TIMES_PADDED
    return [{**shape, **speed, "times": found, "at least": target, "reached": target and found >= target}]


def memory(options) -> list[Row]:
    """A sketch pass's peak beyond a plain pass's, and how it grows with p: LoRA of two ranks, and the full model."""
    rows = []
    wide = replace(LORA, name="LoRA, rank 64", rank=64)
    for case, dims in ((LORA, (512, 100)), (wide, (100,)), (FULL, (100,))):
        if case.name.split(",")[0] not in options.cases:
            continue
        case = _fitted(case, options)
        model = engine_cases.make_model(case)
        p = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        del model
        plain = engine_memory.peak_bytes(case, False, 1, "gaussian", options.threads)
        for dim in dims:
            sketched = engine_memory.peak_bytes(case, True, dim, "gaussian", options.threads)
            extra, target = (sketched - plain) / 2**20, None if options.quick else EXTRA_MIB.get(case.name)
            figures = {"plain MiB": plain / 2**20, "sketch MiB": sketched / 2**20, "extra MiB": extra}
            reached = None if target is None else extra <= target
            rows.append({"case": case.name, "d": dim, "p": p, **figures, "at most": target, "reached": reached})
    return rows


def growth(options) -> list[Row]:
    """The time of 1, 2 and 4 batches."""
    case = _fitted(LORA, options)
    sketcher = Sketcher(engine_cases.make_model(case), dim=100)
    batches = [engine_cases.make_batch(case, seed) for seed in range(4)]
    passes = {str(n): lambda n=n: [sketcher(batch) for batch in batches[:n]] for n in (1, 2, 4)}
    found = {int(n): float(np.median(each)) for n, each in seconds(passes, options.repeats).items()}
    return [{"batches": n, "median s": each, "a batch, against one": each / n / found[1]} for n, each in found.items()]


TABLES = {
    "A sketch pass beside a plain pass": sketch_against_plain,
    "Other ways, LoRA": rivals,
    "Lengths": lengths,
    "Memory": memory,
    "Growth": growth,
}


def _fitted(case: Case, options) -> Case:
    return replace(case.tiny() if options.quick else case, device=options.device)


def _ratio(plain: list[float], sketched: list[float], target: float | None) -> Row:
    """Medians and their ratio; `lowest` and `highest` are the ratios of single turns."""
    found, turns = float(np.median(sketched) / np.median(plain)), np.divide(sketched, plain)
    times = {"plain s": float(np.median(plain)), "sketch s": float(np.median(sketched)), "ratio": found}
    spread = {"lowest": float(turns.min()), "highest": float(turns.max())}
    return {**times, **spread, "at most": target, "reached": None if target is None else found <= target}


def _padded(sketcher: Sketcher, examples, tokens: int, longest: int) -> None:
    """Batches in the rows' own order, every row as long as the longest of all."""
    size = max(1, tokens // longest)
    for start in range(0, len(examples), size):
        batch = collate(examples[start : start + size], 0)
        missing = longest - batch["input_ids"].shape[1]
        fill = {"input_ids": 0, "attention_mask": 0, "labels": UNSUPERVISED}
        sketcher({name: pad(tensor, (0, missing), value=fill[name]) for name, tensor in batch.items()})
