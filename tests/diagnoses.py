"""Diagnoses small enough for a test: few subsets, two steps of training, sixteen columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch

from gradex_fast import pipeline
from gradex_fast.diagnose import PARTS, Diagnosis, diagnose, figures
from gradex_fast.estimate import SubsetEstimator
from gradex_fast.evaluate import evaluate
from gradex_fast.model import load_model
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe
from gradex_fast.sketch import Sketcher, sketch_examples
from gradex_fast.train import train
from gradex_fast.types import Example, Sketches

ASKED = {"subsets": 5, "path": 2, "directions": 1, "distances": [0.001, 0.002], "rows": 9}
ASKED |= {"dims": [8, 16, 24], "ridges": [0.1, 1]}
TRAINED = {"anchors": 0, "anchor_fraction": 0.5, "anchor_train": {"steps": 2, "batch_size": 8, "checkpoints": 0}}
TREES = {"full": runs.language_tree, "lora": runs.lora_tree, "classifier": runs.classifier_tree}


def tree(kind: str, inputs: Path, output: Path, **sections: Any) -> runs.Tree:
    own = runs.merged(TREES[kind](inputs, output), diagnose=ASKED, estimate=TRAINED)
    return runs.merged(own, **sections)


def diagnosed(tree: runs.Tree, parts=tuple(PARTS), *, drawn: bool = False, **options: Any) -> Diagnosis:
    """Without figures, unless they are what is looked at: they take longer than the rest."""
    with pytest.MonkeyPatch.context() as patch:
        if not drawn:
            patch.setattr(figures, "write", lambda *_: [])
        return diagnose(Recipe.build(tree), parts, reporter=Reporter(quiet=True), **options)


def finished(tree: runs.Tree) -> pipeline.Run:
    """The run itself, with what its stages made."""
    return runs.run(tree, until="estimate")


def meta(run: pipeline.Run) -> torch.nn.Module:
    return load_model(run.recipe.model, 0, "cpu", trained=run.path / "meta")


def fine_tuned(run: pipeline.Run, names: list[str], folder: Path) -> torch.nn.Module:
    """θ* fine-tuned by hand on some sources and the target's own rows."""
    examples = [e for s in (*run.corpus.sources, run.corpus.train) for e in s.examples if s.name in names]
    model, own = meta(run), [e for e in run.corpus.train.examples if run.corpus.train.name not in names]
    with Reporter(quiet=True) as reporter, reporter.stage("by hand") as stage:
        options = {"pad_id": run.pad_id, "folder": folder, "seed": 0, "stage": stage}
        train(model, [*examples, *own], run.recipe.estimate.anchor_train, **options)
    return model


def validation_loss(run: pipeline.Run, model: torch.nn.Module) -> float:
    return evaluate(model, run.corpus.validation.examples, pad_id=run.pad_id, batch_tokens=8192).loss.mean()


def sketched(run: pipeline.Run, examples: list[Example], **options: Any) -> Sketches:
    return sketch_examples(Sketcher(meta(run), **options), examples, pad_id=run.pad_id, batch_tokens=8192)


def estimated(run: pipeline.Run, subsets: list[list[str]], ridge: float, **options: Any) -> np.ndarray:
    """f̂ of subsets given by their sources' names, from sketches made anew."""
    train, valid = (sketched(run, rows, **options) for rows in (run.examples(), run.corpus.validation.examples))
    sources = [*run.corpus.sources, run.corpus.train]
    groups = np.repeat(np.arange(len(sources)), [len(source.examples) for source in sources])
    estimator = SubsetEstimator(train, groups, valid, ridge=ridge, always=[len(sources) - 1])
    return estimator.estimate([[run.corpus.names.index(name) for name in names] for names in subsets]).loss
