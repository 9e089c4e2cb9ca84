"""The same directory again: nothing is done twice, nothing of another recipe is taken, nothing is lost unasked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import runs
from safetensors.torch import load_file, save_file

from gradex_fast import finetuning, sketching
from gradex_fast.errors import GradexError
from gradex_fast.recipe import Recipe
from gradex_fast.workspace import Workspace

COSTLY = ("meta", "sketches", "final")


@pytest.fixture(scope="module")
def original(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; copied, never written."""
    output = tmp_path_factory.mktemp("original") / "run"
    runs.run(runs.language_tree(inputs, output, select={"keep": 2}))
    return output


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "run")


def tree(inputs: Path, output: Path, **sections) -> runs.Tree:
    return runs.merged(runs.language_tree(inputs, output, select={"keep": 2}), **sections)


def times(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for folder in COSTLY for path in (run / folder).rglob("*")}


def selection(run: Path) -> dict:
    found = json.loads((run / "selection.json").read_text())
    return {key: value for key, value in found.items() if key != "seconds"}


def test_a_second_run_trains_and_sketches_nothing(inputs, original, copy, monkeypatch):
    before = times(copy)
    for module, name in ((finetuning, "train"), (finetuning, "load_model"), (sketching, "sketch_examples")):
        monkeypatch.setattr(module, name, None)  # called, it fails
    again = runs.run(tree(inputs, copy))
    assert times(copy) == before
    assert selection(copy) == selection(original)
    for name in ("subsets.parquet", "scores.csv", "selected.jsonl"):
        assert (copy / name).read_bytes() == (original / name).read_bytes()
    first = json.loads((original / "metrics.json").read_text())
    assert again.summary["metrics"]["final_loss"] == first["final_loss"]
    assert again.summary["seconds"]["train meta"] == again.workspace.done("meta")["seconds"]


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("sketch", {"dim": 17}, "sketch.dim = 16, this run has 17"),
        ("sketch", {"shard_rows": 8}, "sketch.shard_rows = 16, this run has 8"),
        ("train", {"learning_rate": 0.5}, "train.learning_rate = 0.01, this run has 0.5"),
        ("model", {"adapter": "lora", "rank": 2, "targets": ["c_attn"]}, "model.adapter = 'full', this run has 'lora'"),
        ("data", {"max_length": 10}, "data = '"),
        ("data", {"sources": [{"path": "copy.jsonl"}, {"path": "more.jsonl"}]}, "data = '"),
        ("seed", 1, "seed = 0, this run has 1"),
    ],
)
def test_what_the_sketches_depend_on_may_not_change(inputs, copy, section, value, message):
    before = runs.digests(copy)
    with pytest.raises(GradexError) as error:
        runs.run(tree(inputs, copy, **{section: value}))
    assert f"manifest.json was made with {message}" in str(error.value)
    assert "--overwrite" in str(error.value) and "\n" not in str(error.value)
    assert runs.digests(copy) == before


def test_a_run_from_before_there_were_distributions_goes_on(inputs, copy):
    manifests = [copy / "manifest.json", *copy.glob("sketches/**/manifest.json")]
    for path in manifests:
        before = json.loads(path.read_text())
        del before["identity"]["sketch.distribution"]
        path.write_text(json.dumps(before))
    assert len(manifests) > 1
    shards = {path: path.read_bytes() for path in copy.glob("sketches/**/*.safetensors")}
    runs.run(tree(inputs, copy))
    assert shards and all(path.read_bytes() == content for path, content in shards.items())
    with pytest.raises(GradexError, match=r"sketch.distribution = 'gaussian', this run has 'rademacher'"):
        runs.run(tree(inputs, copy, sketch={"distribution": "rademacher"}))


def test_another_pretrained_model_may_not_take_its_place(inputs, copy, tmp_path):
    other = shutil.copytree(inputs / "gpt2", tmp_path / "gpt2")
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(GradexError, match=r"manifest.json was made with model = '\w+', this run has"):
        runs.run(tree(inputs, copy, model={"name": str(other)}))
    shutil.copytree(inputs / "gpt2", tmp_path / "moved")
    with pytest.raises(GradexError, match=r"model.name = .*gpt2', this run has .*moved"):
        runs.run(tree(inputs, copy, model={"name": str(tmp_path / "moved")}))


def test_overwrite_begins_again(inputs, original, copy):
    run = runs.run(tree(inputs, copy, sketch={"dim": 4}), overwrite=True)
    assert run.train.g.shape == (36, 4)
    assert not set(times(copy).values()) & set(times(original).values())
    weights = "meta/model.safetensors"
    assert (copy / weights).read_bytes() == (original / weights).read_bytes()


def test_overwrite_keeps_what_is_not_its_own_and_first_looks_at_the_data(inputs, copy):
    (copy / "notes.txt").write_text("mine")
    before = runs.digests(copy)
    missing = {"validation": {"path": "nowhere.jsonl"}}
    with pytest.raises(GradexError, match=r"nowhere\.jsonl"):
        runs.run(tree(inputs, copy, data={"target": missing}), overwrite=True)
    assert runs.digests(copy) == before
    runs.run(tree(inputs, copy, sketch={"dim": 4}), until="prepare", overwrite=True)
    made = {"manifest.json", "config.yaml", ".locks", "run.log"}
    assert {path.name for path in copy.iterdir()} == {"notes.txt", *made}


def test_a_manifest_of_something_else_is_no_run(inputs, tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "an extension of a browser"}')
    (tmp_path / "background.js").write_text("mine")
    before = runs.digests(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(GradexError, match="is not empty and holds no run"):
            runs.run(tree(inputs, tmp_path), overwrite=overwrite)
    assert runs.digests(tmp_path) == before


def test_what_stopped_the_first_stage_may_be_mended(inputs, tmp_path):
    with pytest.raises(GradexError, match=r"lower train\.learning_rate"):
        runs.run(tree(inputs, tmp_path / "run", train={"steps": 3, "learning_rate": 1e30}))
    runs.run(tree(inputs, tmp_path / "run", train={"steps": 3}), until="meta")
    with pytest.raises(GradexError, match=r"train\.steps"):
        runs.run(tree(inputs, tmp_path / "run", train={"steps": 4}), until="meta")


def test_a_folder_that_is_no_run_is_left_alone(inputs, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(GradexError, match="is not empty and holds no run; choose another output folder"):
            runs.run(tree(inputs, tmp_path), overwrite=overwrite)
    assert runs.digests(tmp_path).keys() == {"thesis.tex"}


def test_other_settings_select_anew_from_the_same_sketches(inputs, original, copy):
    before = {path: when for path, when in times(copy).items() if "final" not in path.parts}
    run = runs.run(tree(inputs, copy, select={"method": "forward", "keep": 3}), until="select")
    assert len(selection(copy)["chosen"]) == 3 and selection(copy)["method"] == "forward"
    assert {path: when for path, when in times(copy).items() if "final" not in path.parts} == before
    assert Recipe.load(copy / "config.yaml") == run.recipe


def test_a_final_model_of_another_choice_is_neither_taken_nor_destroyed(inputs, original, copy):
    before, other = runs.digests(copy / "final"), tree(inputs, copy, select={"keep": 3})
    with pytest.raises(GradexError, match="final is a model trained on other rows; move it away, or begin again"):
        runs.run(other)
    assert runs.digests(copy / "final") == before
    (copy / "final").rename(copy / "earlier")
    run = runs.run(other)
    assert len(run.selection.chosen) == 3
    assert runs.digests(copy / "final").keys() == before.keys() and runs.digests(copy / "final") != before
    assert runs.digests(copy / "earlier") == before


def test_a_damaged_shard_is_sketched_again(inputs, original, copy):
    shard, whole = copy / "sketches/train-000001.safetensors", copy / "sketches/train-000000.safetensors"
    untouched = whole.stat().st_mtime_ns
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x55")
    runs.run(tree(inputs, copy))
    assert shard.read_bytes() == (original / "sketches" / shard.name).read_bytes()
    assert whole.stat().st_mtime_ns == untouched


@pytest.mark.parametrize("folder", ["meta", "final"])
def test_a_model_that_is_gone_is_trained_again(inputs, original, copy, folder):
    shutil.rmtree(copy / folder)
    runs.run(tree(inputs, copy))
    weights = f"{folder}/model.safetensors"
    assert (copy / weights).read_bytes() == (original / weights).read_bytes()


@pytest.mark.parametrize("coming", [".manifest.json.host.7.tmp", ".config.yaml.host.7.tmp"])
def test_another_process_that_writes_the_first_files_is_no_stranger(coming, inputs, tmp_path):
    (tmp_path / "run" / ".locks").mkdir(parents=True)
    (tmp_path / "run" / coming).write_text("{")
    Workspace(Recipe.build(tree(inputs, tmp_path / "run")))
    (tmp_path / "run" / ".other.7.tmp").write_text("{")
    with pytest.raises(GradexError, match="holds no run"):
        Workspace(Recipe.build(tree(inputs, tmp_path / "run")))
