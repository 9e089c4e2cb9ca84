"""Workload A, noisy addition (the paper, §3.3, Figure 2): 20 groups of sums, ten with random digits, 2-layer GPT-2.

    python benchmarks/fidelity/addition.py

For every seed: f̂ against f over 24 subsets fine-tuned from θ*, how far rivals' scores tell noisy groups from clean
ones, and forward selection by f̂ beside the same by f.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from common import Case, Figures, measure_each, options, separation
from shares import by_share
from two_searches import side_by_side

from gradex_fast import demo, metrics, pipeline
from gradex_fast.baselines import compare
from gradex_fast.progress import Reporter

RIVALS = ("gradex", "dsir", "deft", "deft_meta", "less", "trak")
SIZE = replace(demo.FULL, anchors=24)
TINY = replace(demo.SHORT, groups=4, rows=4, validation=8, steps=4, anchor_steps=2, anchors=3, subsets=20, dim=8)


def prepare(seed: int, folder: Path, size: demo.DemoSize = SIZE) -> Case:
    made = demo.make_demo(folder, seed, size)
    run = pipeline.run(made.recipe, until="select", reporter=Reporter(quiet=True))
    return Case(run, np.array([label == "noisy" for label in made.labels]))


def truth(case: Case) -> Figures:
    """Spearman, Pearson and relative errors over the anchors; calibrated: each by the line through the others."""
    run = case.run
    estimate = run.estimator.at_ridge(run.estimator.ridge).estimate(run.truths).loss
    pairs = {"estimate": estimate.tolist(), "truth": run.truth.tolist()}
    return {**metrics.agreement(estimate, run.truth), **pairs}


def rivals(case: Case) -> Figures:
    """Noisy groups told from clean ones by each rival's score."""
    return {"separation": separation(compare(case.run, RIVALS), case.bad), "bad": case.bad.tolist()}


def forward(case: Case) -> Figures:
    """f as the estimate means it: trained from θ*."""
    return side_by_side(case.run, "meta")


PARTS = {"truth": truth, "rivals": rivals, "shares": by_share, "forward": forward}


def main() -> None:
    asked = options(__doc__, PARTS).parse_args()
    measure_each("addition", asked, partial(prepare, size=TINY) if asked.tiny else prepare, PARTS)


if __name__ == "__main__":
    main()
