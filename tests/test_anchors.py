"""What the pipeline gives the estimator: subsets fine-tuned for real, lifted models, the target's rows, finite rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import runs
import torch

from gradex_fast import finetuning, kernels, metrics, pipeline
from gradex_fast.errors import GradexError
from gradex_fast.estimate import RIDGES
from gradex_fast.evaluate import evaluate
from gradex_fast.model import load_model
from gradex_fast.modules import trainable
from gradex_fast.reference import solve as reference
from gradex_fast.sketch import Sketcher
from gradex_fast.types import Sketches

ANCHORS = {"ridge": "auto", "anchors": 4, "anchor_fraction": 0.5, "anchor_train": {"steps": 2, "batch_size": 8}}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list:
    """Every training: the model's weights before it, its examples, its recipe."""
    calls, real = [], finetuning.train

    def recorded(model, examples, recipe, **options):
        calls.append(({n: p.detach().clone() for n, p in trainable(model).items()}, examples, recipe))
        return real(model, examples, recipe, **options)

    monkeypatch.setattr(finetuning, "train", recorded)
    return calls


def test_anchors_start_at_the_meta_initialisation_and_set_the_ridge(inputs, tmp_path, trained):
    run = runs.run(runs.lora_tree(inputs, tmp_path / "run", estimate=ANCHORS))
    _, *anchors, final = trained
    meta = trainable(load_model(run.recipe.model, 0, "cpu", trained=run.path / "meta"))
    for (start, examples, recipe), subset in zip(anchors, run.truths, strict=True):
        assert all(torch.equal(start[name], meta[name]) for name in meta)
        assert (recipe.steps, recipe.batch_size) == (2, 8)
        sources = {example.id.split("/")[0] for example in examples}
        names = [run.corpus.names[i] for i in np.flatnonzero(subset[:4])]
        assert sources == {*names, "target-train"} and len(names) == 2
    assert any((final[0][name] != meta[name]).any() for name in meta)
    errors = {ridge: run.estimator.at_ridge(ridge).calibrated(run.truths, run.truth) for ridge in RIDGES}
    assert run.estimator.ridge == min(RIDGES, key=lambda ridge: errors[ridge].calibration.error)
    found, written = run.summary["metrics"], json.loads((run.path / "metrics.json").read_text())
    raw = run.estimator.at_ridge(run.estimator.ridge).estimate(run.truths).loss
    assert found["spearman"] == written["spearman"] == metrics.spearman(raw, run.truth)
    assert found["constant_error"] == metrics.constant_error(run.truth)
    assert [pair["truth"] for pair in run.summary["truth"]] == run.truth.tolist()


def test_anchors_of_another_recipe_are_trained_again_and_no_others(inputs, tmp_path, trained):
    tree = runs.lora_tree(inputs, tmp_path / "run", estimate={**ANCHORS, "ridge": 1.0})
    first = runs.run(tree, until="estimate")
    again = runs.run(tree, until="estimate")
    assert len(trained) == 1 + 4 and (again.truth == first.truth).all()
    more = runs.run(runs.merged(tree, estimate={"anchors": 5}), until="estimate")
    assert len(trained) == 1 + 4 + 1 and (more.truth[:4] == first.truth).all()
    longer = runs.run(runs.merged(tree, estimate={"anchor_train": {"steps": 3, "batch_size": 8}}), until="estimate")
    assert len(trained) == 1 + 4 + 1 + 4 and (longer.truth != first.truth).any()


def test_no_held_out_row_is_ever_trained_on(inputs, tmp_path, trained):
    target = {"train": {"path": "said-train.jsonl"}, "validation": {"path": "said-copy.jsonl", "limit": 3}}
    data = {"target": target, "on_overlap": "drop"}
    corpus = runs.run(runs.classifier_tree(inputs, tmp_path / "run", data=data, estimate={"anchors": 1})).corpus
    held_out = {example.digest for part in (corpus.validation, corpus.test) for example in part.examples}
    assert corpus.sources[0].overlapping >= 3  # there was something to leak
    assert len(trained) == 3
    assert not held_out & {example.digest for _, examples, _ in trained for example in examples}


@pytest.mark.parametrize("own", [True, False])
def test_the_targets_own_rows_are_in_every_subset(inputs, tmp_path, own):
    target = {part: {"path": f"{part}.jsonl"} for part in ("train", "validation")[not own :]}
    run = runs.run(runs.language_tree(inputs, tmp_path / "run", data={"target": target}), until="select")
    made, groups = run.estimator, np.repeat(np.arange(5), [8, 8, 8, 8, 4 * own])
    assert made.groups == 4 + own and made.candidates.tolist() == [0, 1, 2, 3]
    for mask, x in zip(run.selection.subsets, run.selection.estimates.x, strict=True):
        rows = np.isin(groups, [*np.flatnonzero(mask[:4]), 4])
        features = run.train.g[rows].astype(float)
        problem = features, run.train.margin[rows], np.ones(len(features)), made.l2, made.divisor
        best = reference.objective(reference.minimize(*problem), *problem)
        assert best * (1 - 1e-14) <= reference.objective(x, *problem) <= best * (1 + 1e-6)


def test_lift_mode_is_the_loss_of_the_moved_model(inputs, tmp_path):
    run = runs.run(runs.lora_tree(inputs, tmp_path / "run", estimate={"mode": "lift"}, select={"subsets": 3}))
    found = run.selection.estimates
    for x, loss in zip(found.x, found.loss, strict=True):
        model = load_model(run.recipe.model, 0, "cpu", trained=run.path / "meta")
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                weights = torch.as_tensor(x, dtype=torch.float32)[None]
                parameter += kernels.lift(weights, parameter.numel(), name=name, seed=0).view_as(parameter)
        moved = evaluate(model, run.corpus.validation.examples, pad_id=run.pad_id, batch_tokens=8192)
        assert loss == pytest.approx(moved.loss.mean(), rel=1e-6)


def broken_where(monkeypatch: pytest.MonkeyPatch, is_broken) -> None:
    """Gradients that are not finite for the rows that `is_broken` finds by their length."""
    real = Sketcher.__call__

    def sketched(self, batch):
        found = real(self, batch)
        broken = is_broken(batch["attention_mask"].sum(1).numpy())
        return Sketches(np.where(broken[:, None], np.nan, found.g), found.margin, found.loss)

    monkeypatch.setattr(Sketcher, "__call__", sketched)


@pytest.mark.parametrize("mode", ["linear", "lift"])
def test_rows_without_a_finite_gradient_are_left_out_and_said(inputs, tmp_path, monkeypatch, capsys, mode):
    broken_where(monkeypatch, lambda lengths: lengths == lengths.max())
    options = {"sketch": {"on_nonfinite": "skip", "batch_tokens": 1000}, "estimate": {"mode": mode}}
    run = runs.run(runs.language_tree(inputs, tmp_path / "run", **options))
    assert len(run.estimator.valid) < 6 and np.isfinite(run.selection.estimates.loss).all()
    assert re.search(r"warning: \d+ validation rows have a gradient that is not finite", capsys.readouterr().err)
    listed = (run.path / "nonfinite.csv").read_text().splitlines()
    sources = [*run.corpus.sources, run.corpus.train]
    ids = [(source.name, example.id) for source in sources for example in source.examples]
    own = [("target-validation", example.id) for example in run.corpus.validation.examples]
    expected = [f"training,{','.join(ids[i])},gradient" for i in np.flatnonzero(np.isnan(run.train.g[:, 0]))]
    expected += [f"validation,{','.join(own[i])},gradient" for i in np.flatnonzero(np.isnan(run.validation.g[:, 0]))]
    assert listed == ["split,source,row,what", *expected] and len(expected) > 2


def test_a_row_without_a_finite_gradient_stops_the_run_and_is_named(inputs, tmp_path, monkeypatch):
    broken_where(monkeypatch, lambda lengths: np.arange(len(lengths)) == 0)
    with pytest.raises(GradexError, match=r"gradient of sample \w+/\d is not finite .* sketch.on_nonfinite=skip"):
        runs.run(runs.language_tree(inputs, tmp_path / "run"))
    with pytest.raises(GradexError, match=r"none of the \d+ training rows has a finite gradient"):
        broken_where(monkeypatch, lambda lengths: lengths > 0)
        runs.run(runs.language_tree(inputs, tmp_path / "other", sketch={"on_nonfinite": "skip"}))


def test_where_no_source_is_chosen_the_target_trains_alone(inputs: Path, tmp_path: Path, trained, monkeypatch):
    def none(run, method, stage):
        found = search(run, method, stage)
        return type(found)((), *(getattr(found, f) for f in ("scores", "low", "high", "path", "subsets", "estimates")))

    search = pipeline._searched
    monkeypatch.setattr(pipeline, "_searched", none)
    run = runs.run(runs.language_tree(inputs, tmp_path / "run"))
    assert [example.id for example in trained[-1][1]] == [f"target-train/{i}" for i in range(4)]
    assert json.loads((run.path / "selection.json").read_text())["chosen"] == []
    only = {"validation": {"path": "validation.jsonl"}}
    with pytest.raises(GradexError, match="no source was chosen and the target has no training rows"):
        runs.run(runs.language_tree(inputs, tmp_path / "other", data={"target": only}))
