"""What ``meta`` changes in a run: θ*, and nothing of the other trainings; what the files and the report say of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import runs
import torch
from processes import KILLED, command
from safetensors.torch import load_file

from gradex_fast import finetuning
from gradex_fast.errors import GradexError
from gradex_fast.evaluate import evaluate
from gradex_fast.model import load_model
from gradex_fast.modules import trainable
from gradex_fast.plan import plan
from gradex_fast.recipe import Recipe
from gradex_fast.sections import MetaRecipe
from gradex_fast.sketch import Sketcher, sketch_examples

pytestmark = pytest.mark.usefixtures("one_thread")
TREES = {"full": runs.language_tree, "lora": runs.lora_tree}


@pytest.fixture
def trainings(monkeypatch) -> list[dict]:
    """The options of every training."""
    calls, real = [], finetuning.train

    def recorded(model, examples, recipe, **options):
        calls.append({"name": options["folder"].name.rsplit("-", 1)[0], **options})
        return real(model, examples, recipe, **options)

    monkeypatch.setattr(finetuning, "train", recorded)
    return calls


def test_sam_is_of_meta_training_alone(inputs, tmp_path, trainings):
    anchors = {"anchors": 1, "anchor_train": {"steps": 1}}
    run = runs.run(runs.language_tree(inputs, tmp_path / "run", meta={"sam": 0.05}, estimate=anchors))
    assert [(call["name"], call["sam"]) for call in trainings] == [("meta", 0.05), ("anchor 1", 0), ("final", 0)]
    assert run.summary["final"]["all"]["sam"] == 0.05 and "sam" not in run.summary["final"]["selected"]
    plain = runs.run(runs.language_tree(inputs, tmp_path / "plain"), until="meta")
    sharp, flat = (load_file(made.path / "meta" / "model.safetensors") for made in (run, plain))
    assert any((sharp[name] != flat[name]).any() for name in sharp)


@pytest.mark.parametrize("adapter", TREES)
def test_none_expands_at_the_pretrained_model_with_fresh_adapters(inputs, tmp_path, trainings, adapter):
    tree = TREES[adapter](inputs, tmp_path / "run", meta="none")
    run = runs.run(tree)
    assert [call["name"] for call in trainings] == ["final"]
    assert run.recipe.meta == MetaRecipe(training="none")
    model = load_model(run.recipe.model, 0, "cpu")
    kept = trainable(load_model(run.recipe.model, 0, "cpu", trained=run.path / "meta"))
    assert all(torch.equal(p, kept[name]) for name, p in trainable(model).items())
    options = {"pad_id": run.pad_id, "batch_tokens": 8192}
    expected = sketch_examples(Sketcher(model, dim=16), run.corpus.validation.examples, **options)
    np.testing.assert_allclose(run.validation.g, expected.g, atol=1e-5 * np.abs(expected.g).max())
    loss = evaluate(model, run.corpus.validation.examples, **options).loss.mean()
    assert run.summary["final"]["pretrained"]["loss"] == pytest.approx(loss, rel=1e-6)
    assert run.summary["final"].keys() == {"selected", "pretrained"}
    assert run.workspace.done("meta")["rows"] == 0
    runs.run(tree)
    assert len(trainings) == 1


def test_early_stopping_is_of_meta_training_alone_and_said(inputs, tmp_path, trainings, capsys):
    meta, train = {"patience": 1, "every": 2}, {"steps": 12, "learning_rate": 0.3, "schedule": "constant"}
    tree = runs.language_tree(inputs, tmp_path / "run", meta=meta, train=train)
    run = runs.run(tree)
    stopping = trainings[0]["stopping"]
    assert [call["stopping"] is None for call in trainings] == [False, True]
    note = run.workspace.done("meta")
    assert note["looks"] == len(stopping.looks) < 6 and note["best_step"] == stopping.best
    assert note["validation_loss"] == pytest.approx(stopping.looks[stopping.best], rel=1e-9)
    said = f"stopped at the best of {note['looks']} looks at the validation rows"
    assert said in capsys.readouterr().err
    assert run.summary["final"]["all"]["looks"] == note["looks"]
    for report in ("report.md", "report.html"):
        assert said in (run.path / report).read_text()
    again = runs.run(tree)
    assert len(trainings) == 2 and again.warnings == run.warnings


def test_a_run_killed_in_meta_training_stops_at_the_same_step(inputs, tmp_path):
    meta = {"patience": 2, "every": 1, "sam": 0.05}
    train = {"steps": 12, "learning_rate": 0.1, "schedule": "constant", "checkpoints": 5}
    settings = {"meta": meta, "train": train, "model": {"dropout": 0.1}}
    paths = {
        name: str(runs.write_recipe(tmp_path / f"{name}.yaml", runs.lora_tree(inputs, tmp_path / name, **settings)))
        for name in ("whole", "cut")
    }
    assert command("meta", paths["whole"], "--quiet") == 0
    assert command("meta", paths["cut"], "--quiet", kill_at=("os.mkdir", r"/checkpoint-4$")) == KILLED
    assert command("meta", paths["cut"], "--quiet", kill_at=("os.mkdir", r"/checkpoint-2$")) == 0
    manifests = {name: json.loads((tmp_path / name / "manifest.json").read_text()) for name in paths}
    whole, cut = (manifest["done"]["meta"] for manifest in manifests.values())
    assert whole["looks"] < 12 or whole["best_step"] < 12
    assert {k: v for k, v in cut.items() if k != "seconds"} == {k: v for k, v in whole.items() if k != "seconds"}
    one, other = (tmp_path / name / "meta" / "adapter_model.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()
    assert not list((tmp_path / "cut" / "checkpoints").glob("*/look*"))


def test_a_run_from_before_there_was_meta_goes_on_and_is_plain(inputs, tmp_path, trainings):
    tree = runs.language_tree(inputs, tmp_path / "run")
    runs.run(tree)
    for path in (tmp_path / "run").glob("**/manifest.json"):
        before = json.loads(path.read_text())
        for field in [name for name in before["identity"] if name.startswith("meta.")]:
            del before["identity"][field]
        path.write_text(json.dumps(before))
    runs.run(tree)
    assert len(trainings) == 2
    for meta, message in (({"sam": 0.1}, "meta.sam = 0.0, this run has 0.1"), ("none", "meta.training = 'all', this")):
        with pytest.raises(GradexError, match=message):
            runs.run({**tree, "meta": meta})


def test_checkpoints_of_another_meta_training_are_not_gone_on_from(inputs, tmp_path, trainings, monkeypatch):
    """Nothing binds a run before its first stage is done, so that its options may still change."""
    folders = set()
    for meta in ({}, {"sam": 0.1}, {"sam": 0.2}, {"patience": 1}):
        monkeypatch.setattr(finetuning, "train", lambda *_, folder, **__: folders.add(folder.name) or 1 / 0)
        with pytest.raises(ZeroDivisionError):
            runs.run(runs.language_tree(inputs, tmp_path / "run", meta=meta))
    assert len(folders) == 4


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"sam": -1}, "recipe: meta.sam: Input should be greater than or equal to 0"),
        ({"patience": 0}, "recipe: meta.patience: Input should be greater than or equal to 1"),
        ({"training": "none", "sam": 0.1}, "recipe: meta: Value error, training: none leaves nothing for sam or"),
        ({"training": "none", "patience": 3}, "recipe: meta: Value error, training: none leaves nothing for sam or"),
        ("nothing", "recipe: meta: Input should be a valid dictionary or instance of MetaRecipe"),
        ({"pateince": 1}, "recipe: unknown key 'meta.pateince'; did you mean 'patience'?"),
    ],
)
def test_what_a_recipe_may_not_ask_for(inputs, tmp_path, meta, message):
    with pytest.raises(GradexError) as error:
        Recipe.build({**runs.language_tree(inputs, tmp_path), "meta": meta})
    assert str(error.value).startswith(message)


def test_a_recipe_with_meta_and_clusters_loads_to_an_equal_one(inputs, tmp_path):
    tree = runs.language_tree(inputs, tmp_path, clusters={"count": 4, "sources": ["copy"]})
    for meta in ("none", {"sam": 0.05, "patience": 3, "every": 10}):
        recipe = Recipe.build({**tree, "meta": meta})
        (tmp_path / "config.yaml").write_text(recipe.dump())
        assert Recipe.load(tmp_path / "config.yaml") == recipe


def test_the_plan_counts_meta_trainings_passes(inputs, tmp_path):
    seconds = {}
    for name, meta in {"plain": {}, "sam": {"sam": 0.1}, "none": "none"}.items():
        found = plan(Recipe.build({**runs.language_tree(inputs, tmp_path), "meta": meta}))
        seconds[name] = found["seconds"]["meta-training"] * found["tokens_per_second"]
    assert seconds["sam"] == pytest.approx(2 * seconds["plain"]) and seconds["none"] == 0 < seconds["plain"]


@pytest.mark.parametrize(("rate", "learned"), [(1e-7, False), (1e-2, True)])
def test_a_classifier_that_learned_nothing_is_said_to(rate, learned, inputs, tmp_path):
    tree = runs.classifier_tree(inputs, tmp_path / "run", train={"learning_rate": rate, "epochs": 8})
    run = runs.run(tree, until="meta")
    assert (run.workspace.done("meta")["validation_loss"] < np.log(2)) == learned
    assert any("learned nothing" in warning for warning in run.warnings) != learned
