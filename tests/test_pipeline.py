"""Whole runs, each checked against what its stages give when they are called by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import runs
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from gradex_fast import backward_selection, forward_selection, pipeline, random_ensemble
from gradex_fast.evaluate import evaluate
from gradex_fast.model import load_model
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe
from gradex_fast.sketch import Sketcher, sketch_examples
from gradex_fast.train import train

TREES = {"full": runs.language_tree, "lora": runs.lora_tree, "classifier": runs.classifier_tree}
METHODS = {"full": "ensemble", "lora": "forward", "classifier": "backward"}
ALWAYS = ["config.yaml", "manifest.json", "selection.json", "subsets.parquet", "selected.jsonl", "scores.csv"]
REPORTS = ["metrics.json", "report.md", "report.html"]
SKETCHES = [f"sketches/{name}.safetensors" for name in ("train-000000", "train-000002", "validation-000000")]
MODEL = {"full": ["config.json", "model.safetensors"], "lora": ["adapter_config.json", "adapter_model.safetensors"]}
SEARCHES = {"ensemble": random_ensemble, "forward": forward_selection, "backward": backward_selection}


@pytest.fixture(scope="module", params=TREES)
def finished(request: pytest.FixtureRequest, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Run:
    output = tmp_path_factory.mktemp("run") / request.param
    search = {"method": METHODS[request.param], "keep": 2, "also": list(SEARCHES)}
    return runs.run(TREES[request.param](inputs, output, select=search))


def kind(run: pipeline.Run) -> str:
    return run.path.name


def examples(run: pipeline.Run, chosen) -> list:
    return [e for source in (*(run.corpus.sources[i] for i in chosen), run.corpus.train) for e in source.examples]


def trained_by_hand(run: pipeline.Run, chosen, folder: Path) -> torch.nn.Module:
    """The pretrained model, fine-tuned on the chosen sources and the target's own rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    recipe = run.recipe
    model = load_model(recipe.model, recipe.seed, "cpu")
    with Reporter(quiet=True) as reporter, reporter.stage("by hand") as stage:
        options = {"pad_id": run.pad_id, "folder": folder, "seed": recipe.seed, "stage": stage}
        train(model, examples(run, chosen), recipe.train, **options)
    torch.set_num_threads(threads)
    return model


def assert_same_bits(model: torch.nn.Module, folder: Path, by_hand: Path) -> None:
    model.save_pretrained(by_hand)
    (path,) = folder.glob("*.safetensors")
    expected, found = load_file(by_hand / path.name), load_file(path)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in found)


def test_a_run_leaves_every_file(finished):
    names = MODEL["full" if kind(finished) == "full" else "lora"]
    models = [f"{folder}/{name}" for folder in ("meta", "final") for name in names]
    left = set(runs.digests(finished.path))
    assert {*ALWAYS, *REPORTS, *SKETCHES, "sketches/manifest.json", *models} <= left
    assert not [name for name in left if name.endswith(".tmp") or "checkpoint" in name]


def test_config_loads_to_an_equal_recipe(finished):
    assert Recipe.load(finished.path / "config.yaml") == finished.recipe


@pytest.mark.parametrize("name", SEARCHES)
def test_the_choice_is_the_searchs_own(finished, name):
    options = {"subsets": 20, "fraction": 0.75, "seed": 0} if name == "ensemble" else {}
    found = {METHODS[kind(finished)]: finished.selection, **finished.others}[name]
    assert found.chosen == SEARCHES[name](finished.estimator, keep=2, **options).chosen
    assert len(found.chosen) == 2


def test_every_subset_and_its_estimate_are_written(finished):
    table = parquet.read_table(finished.path / "subsets.parquet").to_pydict()
    masks = finished.selection.subsets
    assert [np.flatnonzero(mask[:4]).tolist() for mask in masks] == table["sources"]
    found = finished.estimator.estimate([[*members, 4] for members in table["sources"]])
    # Not the same bits: the path was solved step by step, and an estimate is within 0.1 % of a subset's effect.
    for column, expected in (("low", found.low), ("high", found.high), ("estimate", found.loss)):
        np.testing.assert_allclose(table[column], expected, rtol=1e-3)


def test_the_selection_is_written_in_names(finished):
    written, names = json.loads((finished.path / "selection.json").read_text()), finished.corpus.names
    assert written["chosen"] == [names[i] for i in finished.selection.chosen]
    assert written["method"] == METHODS[kind(finished)]
    assert [step["source"] for step in written["path"]] == [names[s["source"]] for s in finished.selection.path]
    scores = list(csv.DictReader((finished.path / "scores.csv").open()))
    assert [row["source"] for row in scores] == names
    assert [row["source"] for row in scores if row["chosen"] == "true"] == written["chosen"]
    assert [float(row["score"]) for row in scores] == finished.selection.scores[:4].tolist()


def test_selected_rows_are_those_of_the_chosen_sources_and_the_targets_own(finished):
    written = [json.loads(line) for line in (finished.path / "selected.jsonl").read_text().splitlines()]
    chosen = [finished.corpus.names[i] for i in finished.selection.chosen]
    assert [row.pop("_source") for row in written] == [name for name in chosen for _ in range(8)] + ["target-train"] * 4
    assert written == [example.row for example in examples(finished, finished.selection.chosen)]


def test_the_final_model_is_trained_from_the_pretrained_one(finished, tmp_path):
    model = trained_by_hand(finished, finished.selection.chosen, tmp_path / "checkpoints")
    assert_same_bits(model, finished.path / "final", tmp_path / "by hand")


def test_the_meta_initialisation_is_trained_on_everything(finished, tmp_path):
    model = trained_by_hand(finished, range(4), tmp_path / "checkpoints")
    assert_same_bits(model, finished.path / "meta", tmp_path / "by hand")
    assert finished.workspace.done("meta")["rows"] == 4 * 8 + 4


def test_the_sketches_are_those_of_the_rows_in_order(finished):
    model = load_model(finished.recipe.model, 0, "cpu", trained=finished.path / "meta")
    for found, rows in ((finished.train, examples(finished, range(4))), (finished.validation, None)):
        rows = rows or finished.corpus.validation.examples
        expected = sketch_examples(Sketcher(model, dim=16, seed=0), rows, pad_id=finished.pad_id, batch_tokens=1)
        np.testing.assert_allclose(found.g, expected.g, atol=1e-4 * np.abs(expected.g).max())


def test_the_distribution_of_the_recipe_is_the_sketches_and_the_lift_s(inputs, tmp_path):
    sections = {"sketch": {"distribution": "tensorsketch"}, "estimate": {"mode": "lift"}}
    run = runs.run(runs.language_tree(inputs, tmp_path / "run", **sections), until="estimate")
    model = load_model(run.recipe.model, 0, "cpu", trained=run.path / "meta")
    sketcher, rows = Sketcher(model, dim=16, distribution="tensorsketch"), run.corpus.validation.examples
    options = {"pad_id": run.pad_id, "batch_tokens": 8192}
    expected = sketch_examples(sketcher, rows, **options)
    np.testing.assert_allclose(run.validation.g, expected.g, atol=1e-4 * np.abs(expected.g).max())
    estimates = run.estimator.estimate([[0, 1, 2]])
    with sketcher.moved(estimates.x[0]):
        assert estimates.loss[0] == pytest.approx(evaluate(model, rows, **options).loss.mean(), rel=1e-4)


def test_the_final_model_loads_without_this_package(finished):
    if kind(finished) == "full":
        model = AutoModelForCausalLM.from_pretrained(finished.path / "final")
    else:
        auto = AutoModelForSequenceClassification if kind(finished) == "classifier" else AutoModelForCausalLM
        base = auto.from_pretrained(finished.recipe.model.name)
        model = PeftModel.from_pretrained(base, finished.path / "final")
    for split in ("validation", "test"):
        rows = getattr(finished.corpus, split).examples
        loss = evaluate(model, rows, pad_id=finished.pad_id, batch_tokens=8192).loss.mean()
        assert loss == pytest.approx(finished.final["selected"][f"{split}_loss"], rel=1e-5)
