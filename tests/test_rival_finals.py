"""The models finally trained on the rivals' choices, the table on the command line, and feature transfer."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from gradex_fast import cli
from gradex_fast.baselines import QUICK, compare, feature_transfer, final, finals
from gradex_fast.errors import GradexError
from gradex_fast.evaluate import evaluate
from gradex_fast.model import load_model
from gradex_fast.modules import trainable

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"train": {"epochs": 1}}


@pytest.fixture(scope="module")
def run(inputs: Path, tmp_path_factory: pytest.TempPathFactory):
    return runs.run(runs.classifier_tree(inputs, tmp_path_factory.mktemp("finals") / "run", **SMALL))


def figures(run, model) -> dict[str, float]:
    options = {"pad_id": run.pad_id, "batch_tokens": 8192}
    parts = {part: evaluate(model, getattr(run.corpus, part).examples, **options) for part in ("validation", "test")}
    losses = {f"{part}_loss": found.loss.mean() for part, found in parts.items()}
    return losses | {f"{part}_exact_match": found.correct.mean() for part, found in parts.items()}


def test_a_final_model_is_the_pipelines_own(run):
    rows = compare(run, ["gradex", "all", "pretrained"])
    found = finals(run, rows)
    for name, of in (("gradex", "selected"), ("all", "all")):
        expected = {key: value for key, value in run.final[of].items() if key.endswith(("loss", "match"))}
        assert {key: found[name][key] for key in expected} == pytest.approx(expected)
    untouched = figures(run, load_model(run.recipe.model, 0, "cpu"))
    assert {key: found["pretrained"][key] for key in untouched} == pytest.approx(untouched)
    assert (found["all"]["rows"], found["pretrained"]["rows"]) == (36, 0)


def test_equal_choices_are_trained_once(run, monkeypatch):
    rows = compare(run, ["dsir", "random"], keep=4)
    first = finals(run, rows)
    assert first["dsir"] == first["random"]
    monkeypatch.setattr(final, "train", None)  # called, it fails
    assert finals(run, rows) == first


def test_feature_transfer_trains_the_head_alone(run):
    before = load_model(run.recipe.model, 0, "cpu")
    found, model = feature_transfer(run), load_model(run.recipe.model, 0, "cpu")
    final._only_head(model)
    assert {name.split(".")[-3] for name in trainable(model)} == {"modules_to_save"}
    assert all("classifier" in name for name in trainable(model))
    assert found["rows"] == 36 and found["validation_loss"] != pytest.approx(figures(run, before)["validation_loss"])


def test_feature_transfer_of_an_untied_language_model(inputs, tmp_path):
    """Llama, every parameter trained: the head is lm_head."""
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2}
    set_seed(0)
    shutil.copytree(inputs / "gpt2", tmp_path / "llama")
    for path in (tmp_path / "llama").glob("*.safetensors"):
        path.unlink()
    size = json.loads((inputs / "gpt2" / "config.json").read_text())["vocab_size"]
    LlamaForCausalLM(LlamaConfig(vocab_size=size, **sizes)).save_pretrained(tmp_path / "llama")
    tree = runs.language_tree(inputs, tmp_path / "run", model={"name": str(tmp_path / "llama")}, **SMALL)
    made = runs.run(tree, until="prepare")
    model = load_model(made.recipe.model, 0, "cpu")
    final._only_head(model)
    assert list(trainable(model)) == ["lm_head.weight"]
    assert np.isfinite(feature_transfer(made)["validation_loss"])


@pytest.mark.parametrize("tree", [runs.language_tree, runs.lora_tree])
def test_feature_transfer_needs_a_head(inputs, tmp_path, tree):
    made = runs.run(tree(inputs, tmp_path / "run", **SMALL), until="prepare")
    with pytest.raises(GradexError, match="this model has none that is trained and is not its embedding"):
        feature_transfer(made)


@pytest.fixture
def recipe(inputs: Path, tmp_path: Path) -> str:
    return str(runs.write_recipe(tmp_path / "recipe.yaml", runs.classifier_tree(inputs, tmp_path / "run", **SMALL)))


def test_the_command_prints_a_table(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    assert cli.main(["compare", recipe, "--rivals", "dsir", "less", "--keep", "2", "--finetune", "--quiet"]) == 0
    out = capsys.readouterr().out
    figures = [r"\d+", r"\d+", r"(?:\d\.\de\d+|0)", r"[\d.]+", r"\d+\.\d s", r"[\d.]+", r"\d\.\d{4}", r"\d+\.\d%"]
    for name in ("dsir", "less"):
        assert re.search(rf"{name} +\S +2 \S +" + r" \S +".join(figures), out), out
    assert not (tmp_path / "run" / "final").exists()


def test_the_command_as_json_with_all_that_are_quick(recipe, tmp_path, capsys):
    assert cli.main(["compare", recipe, "--json", "select.subsets=12"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found] == list(QUICK)
    assert json.loads((tmp_path / "run" / "rivals" / "compare.json").read_text()) == found
    assert all(row["whole"]["seconds"] is not None and "final" not in row for row in found)


def test_the_command_names_a_rival_that_is_none(recipe, tmp_path, capsys):
    assert cli.main(["compare", recipe, "--rivals", "trk"]) == 2
    assert capsys.readouterr().err == "gradex-fast: unknown rival 'trk'; did you mean 'trak'?\n"
    assert not (tmp_path / "run").exists()
