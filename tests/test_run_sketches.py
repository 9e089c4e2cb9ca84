"""`gradex-fast sketches`: a run's sketches and row ids arrive in every form; what does not belong together stops it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs

from gradex_fast import read_sketches
from gradex_fast.cli import main
from gradex_fast.interchange import FORMS
from gradex_fast.pipeline import Run
from gradex_fast.sketching import store_of
from gradex_fast.types import Sketches

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(inputs: Path, tmp_path_factory) -> Run:
    """Its data files lie in a folder of its own."""
    folder = shutil.copytree(inputs, tmp_path_factory.mktemp("sketches") / "inputs")
    train = {"steps": 1, "checkpoints": 0}
    return runs.run(runs.language_tree(folder, folder.parent / "run", train=train), until="sketch")


def called(capsys, *words: str) -> tuple[int, str, str]:
    code = main(["sketches", *words])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("form", FORMS)
def test_sketches_and_ids_arrive(run, tmp_path, capsys, form):
    code, text, _ = called(capsys, str(run.path), "--to", form, "--out", str(tmp_path / "out"), "--json")
    made = json.loads(text)
    assert code == 0 and made["rows"] == {"train": 36, "validation": 6} and made["distribution"] == "gaussian"
    assert made == {"folder": str(tmp_path / "out"), **json.loads((tmp_path / "out" / "sketches.json").read_text())}
    train = read_sketches(tmp_path / "out" if form == "trak" else tmp_path / "out" / "train")
    assert train.g.tobytes() == run.train.g.tobytes() and train.g.shape == (36, 16)
    assert train.margin.tolist() == run.train.margin.tolist() and train.loss.tolist() == run.train.loss.tolist()
    assert train.ids == [example.id for example in run.examples()] and train.ids[0] == "copy/0"
    held = read_sketches(tmp_path / "out" / ("0/validation_grads.mmap" if form == "trak" else "validation"))
    assert held.g.tobytes() == run.validation.g.tobytes()


def test_by_default_it_is_an_export_of_the_run(run, capsys):
    code, text, _ = called(capsys, str(run.path), "--to", "npy")
    folder = run.path / "exports" / "sketches-npy"
    assert code == 0 and text.startswith(f"sketches of 36 train and 6 validation rows, 16 columns: {folder}\n")
    code, _, error = called(capsys, str(run.path), "--to", "npy")
    assert code == 2 and "holds sketches; replace them with --overwrite" in error
    code, _, _ = called(capsys, str(run.path), "--to", "npy", "--overwrite")
    assert code == 0 and read_sketches(folder / "train").g.tobytes() == run.train.g.tobytes()


def test_a_run_of_an_older_version_is_read(run, tmp_path, capsys):
    """Whose manifest names fewer fields than its sketches."""
    old = shutil.copytree(run.path, tmp_path / "old")
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["identity"]["sketch.distribution"], manifest["identity"]["meta.sam"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    assert called(capsys, str(old), "--to", "safetensors")[0] == 0


def test_what_does_not_belong_together_stops_it(run, tmp_path, capsys):
    bare = shutil.copytree(run.path, tmp_path / "bare", ignore=shutil.ignore_patterns("sketches", "exports"))
    code, _, error = called(capsys, str(bare), "--to", "npy")
    assert code == 2 and f"{bare} has no sketches yet; make them with: gradex-fast sketch {bare}" in error
    cut = shutil.copytree(run.path, tmp_path / "cut", ignore=shutil.ignore_patterns("exports"))
    next((cut / "sketches").glob("train-*.safetensors")).unlink()
    code, _, error = called(capsys, str(cut), "--to", "npy")
    assert code == 2 and "1 shards are missing or damaged" in error and not (cut / "exports" / "sketches-npy").exists()
    file = Path(run.recipe.data.folder) / "noise.jsonl"
    whole = file.read_text()
    file.write_text(whole.replace('"prompt": "', '"prompt": "a', 1))
    code, _, error = called(capsys, str(run.path), "--to", "npy", "--out", str(tmp_path / "changed"))
    file.write_text(whole)
    assert code == 2 and "are not those of the run" in error and not (tmp_path / "changed").exists()
    code, _, error = called(capsys, str(tmp_path), "--to", "npy")
    assert code == 2 and "is no run" in error


def test_rows_without_a_gradient_are_counted(run, tmp_path, capsys):
    copy = shutil.copytree(run.path, tmp_path / "copy", ignore=shutil.ignore_patterns("exports"))
    shard = Sketches(run.train.g[:16].copy(), run.train.margin[:16].copy(), run.train.loss[:16])
    shard.g[3, 1] = np.nan
    digests = [example.digest for example in run.examples()[:16]]
    store_of(copy, run.identity, 16).write("train", range(16), shard, digests)
    _, text, _ = called(capsys, str(copy), "--to", "trak", "--out", str(tmp_path / "out"))
    assert "note: 1 rows have no finite gradient, written as zeros" in text
    g = read_sketches(tmp_path / "out").g
    assert not g[3].any() and (g[4:] == run.train.g[4:]).all()
