"""Whole models on a device: a sketch pass beside the plain pass, in time and memory; one sketch on CPU and GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from unittest import mock

import engine_cases
import numpy as np
import torch
from engine_cases import FULL, LORA, Case
from engine_measures import seconds
from gpu_cases import DIM, ROWS, TOKENS, make_llama
from gpu_report import Row, row
from gpu_timing import fitting, peak_bytes, release
from torch import nn

from gradex_fast import kernels
from gradex_fast.batch import Batch
from gradex_fast.bench.pass_cases import plain_pass
from gradex_fast.modes import recomputing
from gradex_fast.sketch import Sketcher

TIMES_PLAIN, TIMES_MEMORY, EXTRA_GIB = 1.08, 1.03, 1.0
"""Llama's sketch pass against the plain pass, at most: seconds, bytes, and GiB beyond the plain pass's."""

TIMES_GPT2 = {"gaussian": 2.0, "rademacher": 1.35}
"""GPT-2's sketch pass of all parameters against the plain pass, at most."""

DEVICES = 1e-4
"""Relative difference of a float32 model's sketches on CPU and GPU, at most."""

LLAMA = Case("Llama-3-8B", rows=ROWS, tokens=TOKENS)


def llama(options) -> Iterator[Row]:
    """Time and memory of Llama's sketch pass; once more with gradient checkpointing where the whole batch needs it."""
    case, model = fitted(LLAMA, options), make_llama(options.device, options.quick)
    measure = partial(_beside_plain, model, case, options)
    rows, found = fitting(case.rows, measure)
    yield from _llama_rows(case, rows, found, "")
    if rows < case.rows or options.quick:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        rows, found = fitting(case.rows, measure)
        yield from _llama_rows(case, rows, found, ", gradient checkpointing in both")


def _beside_plain(model: nn.Module, case: Case, options, rows: int) -> dict[str, float]:
    """Median seconds and peak bytes of every pass, and what the sketches look like."""
    batch = engine_cases.make_batch(replace(case, rows=rows))
    sketcher = Sketcher(model, dim=DIM)
    passes = {
        "plain": partial(plain, model, batch),
        "sketch": partial(sketcher, batch),
        "no kernels": partial(without_kernels, sketcher, batch),
    }
    spent = seconds(passes, options.repeats)
    found = {f"{name} s": float(np.median(each)) for name, each in spent.items()}
    found |= {f"{name} bytes": peak_bytes(passes[name], options.device) for name in ("plain", "sketch")}
    broken = (~np.isfinite(sketcher(batch).g)).any(1).sum()
    return {**found, "not finite": int(broken), "slow": len(sketcher._capture.slow)}


def _llama_rows(case: Case, rows: int, found: dict[str, float], how: str) -> Iterator[Row]:
    halved = f" ({case.rows} do not fit)" if rows < case.rows else ""
    work = f"Llama-3-8B, LoRA r = 16, B = {rows}{halved} × T = {case.tokens}, d = {DIM}{how}"
    plain_s, sketch_s, bare_s = (found[f"{name} s"] for name in ("plain", "sketch", "no kernels"))
    shown = {f"{name} ms": found[f"{name} s"] * 1e3 for name in ("plain", "sketch", "no kernels")}
    shown |= {f"{name} GiB": found[f"{name} bytes"] / 2**30 for name in ("plain", "sketch")}
    ratio = {"at_most": TIMES_PLAIN, "note": "aim 1.04", "figures": shown}
    yield row(f"{work}: sketch pass / plain pass", sketch_s / plain_s, "×", **ratio)
    yield row(f"{work}: the kernels' share, of the plain pass", (sketch_s - bare_s) / plain_s)
    plain_peak, sketch_peak = found["plain bytes"], found["sketch bytes"]
    yield row(f"{work}: peak memory / plain pass's", sketch_peak / plain_peak, "×", at_most=TIMES_MEMORY)
    extra = (sketch_peak - plain_peak) / 2**30
    yield row(f"{work}: peak memory beyond the plain pass's", extra, "GiB", at_most=EXTRA_GIB)
    yield row(f"{work}: samples without a finite sketch", found["not finite"], at_most=0, check=True)
    yield row(f"{work}: parameters that take the slow way", found["slow"], at_most=0, check=True)


def plain(model: nn.Module, batch: Batch) -> None:
    """Forward and backward pass with the base frozen; checkpointing works in evaluation mode, as in a sketch pass."""
    with recomputing(model):
        plain_pass(model, batch)


def without_kernels(sketcher: Sketcher, batch: Batch) -> None:
    """A sketch pass in which no layer is sketched: what is left is the pass with its taps, head and losses."""
    with mock.patch.object(kernels, "sketch", lambda *tensors, out=None, **plan: out):
        sketcher(batch)


def gpt2(options) -> Iterator[Row]:
    """All parameters of GPT-2 (124M), d = 100, in bfloat16 and in float32."""
    case = fitted(replace(FULL, rows=64), options)
    batch = engine_cases.make_batch(case)
    for kind in (torch.bfloat16, torch.float32):
        model = engine_cases.make_model(case).to(kind)
        sketchers = {name: Sketcher(model, dim=100, distribution=name) for name in TIMES_GPT2}
        passes = {"plain": partial(plain, model, batch)}
        passes |= {name: partial(sketcher, batch) for name, sketcher in sketchers.items()}
        found = {name: float(np.median(each)) for name, each in seconds(passes, options.repeats).items()}
        shown = {f"{name} ms": each * 1e3 for name, each in found.items()}
        work = f"GPT-2 124M, all parameters, B = {case.rows} × T = {case.tokens}, d = 100, {kind}"
        yield row(f"{work}, plain", found["plain"] * 1e3, "ms", figures=shown)
        for name, most in TIMES_GPT2.items():
            yield row(f"{work}, {name} / plain", found[name] / found["plain"], "×", at_most=most)
        slow = sum(len(sketcher._capture.slow) for sketcher in sketchers.values())
        yield row(f"{work}: parameters that take the slow way", slow, at_most=0, check=True)
        del model, sketchers, passes
        release()


def devices(options) -> Iterator[Row]:
    """‖GPU - CPU‖ / ‖CPU‖ of the sketches of the same float32 model and batch."""
    for case in (LORA if not options.quick else LORA.tiny(), replace(FULL.tiny(), name="a tiny model, full")):
        model, batch = engine_cases.make_model(case), engine_cases.make_batch(case)
        for kind in TIMES_GPT2:
            g = [
                Sketcher(model.to(device), dim=100, distribution=kind)(moved(batch, device)).g
                for device in ("cpu", options.device)
            ]
            difference = float(np.linalg.norm(g[1] - g[0]) / np.linalg.norm(g[0]))
            what = f"CPU and GPU, float32, {case.name}, {kind}: relative difference"
            yield row(what, difference, at_most=DEVICES, check=True)


def fitted(case: Case, options) -> Case:
    return replace(case.tiny() if options.quick else case, device=options.device)


def moved(batch: Batch, device: str) -> Batch:
    return {name: tensor.to(device) for name, tensor in batch.items()}
