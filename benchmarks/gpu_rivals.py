"""A sketch of Llama's gradients beside other ways to it: a pass for each sample, and gradients that are formed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import engine_cases
import numpy as np
from engine_cases import rows_like_alpaca
from engine_measures import seconds
from gpu_cases import DIM, ROWS, TOKENS, TorchProjection, make_llama
from gpu_passes import LLAMA, fitted, moved
from gpu_report import Row, row
from gpu_timing import fitting, release, synchronise
from torch import nn

from gradex_fast.batch import Batch, collate
from gradex_fast.fitting import Budget
from gradex_fast.memory import out_of_memory
from gradex_fast.sketch import Sketcher, sketch_examples

TIMES_ONE_BY_ONE, TIMES_HOOKS = 10.0, 2.0
"""Samples a second against a pass for each sample, and against gradients formed by hooks, at least."""


def alpaca(options) -> Iterator[Row]:
    """Samples a second on lengths like Alpaca's; the rivals run a few rows whose lengths are spread as all are."""
    count, few, scale, tokens = (8, 2, 1 / 16, 64) if options.quick else (160, 8, 1.0, ROWS * TOKENS)
    model = make_llama(options.device, options.quick)
    examples, budget = rows_like_alpaca(count, scale), Budget(tokens)
    sketch = partial(sketch_examples, Sketcher(model, dim=DIM), examples, pad_id=0, batch_tokens=budget)
    ours = count / float(np.median(seconds({"sketch": sketch}, 2)["sketch"]))
    mean = sum(len(example.input_ids) for example in examples) / count
    about = {"mean tokens": mean, "padded tokens a batch": budget.tokens}
    yield row(f"Llama-3-8B on {count} rows like Alpaca's: samples a second", ours, "/s", figures=about)
    by_length = sorted(examples, key=lambda example: len(example.input_ids))
    chosen = [by_length[(2 * k + 1) * count // (2 * few)] for k in range(few)]
    batches = [moved(collate([example], 0), options.device) for example in chosen]
    for keep, how in ((True, "kept"), (False, "made anew in blocks")):
        what = f"times the samples a second of a backward pass for each, gradients × torch's P, bfloat16, {how}"
        project = TorchProjection(DIM, options.device, keep)
        rate = _unless_full(partial(_rows_a_second, model, batches, project, options.device))
        figures = {"rival samples a second": rate}
        note = "the rival does not fit" if rate is None else ""
        yield row(what, rate and ours / rate, "×", at_least=TIMES_ONE_BY_ONE, note=note, figures=figures)
        del project
        release()


def _rows_a_second(model: nn.Module, batches: list[Batch], project: Callable, device: str) -> float:
    """The first and the last batch are run before, to warm up."""
    for batch in (batches[0], batches[-1]):
        engine_cases.one_by_one(model, batch, project)
    synchronise(device)
    began = time.perf_counter()
    for batch in batches:
        engine_cases.one_by_one(model, batch, project)
    synchronise(device)
    return len(batches) / (time.perf_counter() - began)


def hooks(options) -> Iterator[Row]:
    """A sketch pass against one that forms [n, q, p] gradients in hooks and projects them by blocks of torch's P."""
    case, model = fitted(LLAMA, options), make_llama(options.device, options.quick)
    project = TorchProjection(DIM, options.device, keep=False)

    def measure(rows: int) -> dict[str, float]:
        batch, sketcher = engine_cases.make_batch(replace(case, rows=rows)), Sketcher(model, dim=DIM)
        formed = partial(engine_cases.with_hooks, model, batch, project)
        project.sketches = 0.0
        spent = seconds({"sketch": partial(sketcher, batch), "hooks": formed}, min(3, options.repeats))
        return {f"{name} ms": float(np.median(each)) * 1e3 for name, each in spent.items()}

    rows, found = fitting(case.rows, measure)
    what = f"Llama-3-8B, B = {rows} × T = {case.tokens}: times quicker than gradients formed in hooks, P made anew"
    yield row(what, found["hooks ms"] / found["sketch ms"], "×", at_least=TIMES_HOOKS, figures=found)


def _unless_full(measure: Callable[[], float]) -> float | None:
    """None when memory runs out."""
    try:
        return measure()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    release()
    return None
