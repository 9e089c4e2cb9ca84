"""``--dry-run``: what a run would do, and nothing written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import runs

from gradex_fast.cli import main
from gradex_fast.data import load_corpus
from gradex_fast.model import load_tokenizer
from gradex_fast.plan import measured
from gradex_fast.recipe import Recipe
from gradex_fast.types import Corpus
from gradex_fast.units import duration

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def recipe(inputs: Path, tmp_path: Path) -> str:
    data = {"max_length": 11}
    return str(runs.write_recipe(tmp_path / "recipe.yaml", runs.language_tree(inputs, tmp_path / "run", data=data)))


def corpus_of(recipe: str) -> Corpus:
    loaded = Recipe.load(recipe)
    return load_corpus(loaded, load_tokenizer(loaded.model))


def test_rows_tokens_time_and_disk_are_printed_and_nothing_is_written(recipe, tmp_path, capsys):
    before = runs.digests(tmp_path)
    assert main(["run", recipe, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert runs.digests(tmp_path) == before and not (tmp_path / "run").exists()
    corpus = corpus_of(recipe)
    for source in (*corpus.sources, corpus.train, corpus.validation, corpus.test):
        cells = f"{source.name} │ {len(source.examples)} │ {source.tokens} │ {source.truncated} │ {source.dropped}"
        assert re.search(cells.replace(" │ ", " +│ +"), out), cells
    for part in ("speed: [0-9,]+ tokens a second", "meta-training +about", "sketch +about", "together +about"):
        assert re.search(part, out), part
    assert re.search(r"disk: \d+\.\d MiB of sketches, \d+\.\d MiB at most", out)


def test_json(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measured, "tokens_per_second", lambda *_: 100.0)
    settings = ["estimate.anchors=3", "estimate.anchor_fraction=0.5", "train.epochs=4", "model.adapter=lora"]
    assert main(["run", recipe, "--dry-run", "--json", *settings, "model.targets=[c_attn]", "model.rank=2"]) == 0
    found, corpus = json.loads(capsys.readouterr().out), corpus_of(recipe)
    sources = [*corpus.sources, corpus.train]
    tokens, rows = sum(source.tokens for source in sources), sum(len(source.examples) for source in sources)
    assert [row["rows"] for row in found["sources"]] == [8, 8, 8, 8, 4, 6, 5]
    assert [row["tokens"] for row in found["sources"][:5]] == [source.tokens for source in sources]
    assert sum(row["cut"] for row in found["sources"]) > 0
    assert found["trainable_parameters"] == 16 * 2 + 2 * 48  # c_attn: 16 -> 48
    seconds = found["seconds"]
    whole = 5 * 4 * 8 * tokens / rows / 100  # steps an epoch, epochs, rows a step
    assert seconds["meta-training"] == seconds["final training (at most)"] == pytest.approx(whole)
    assert seconds["anchors"] == pytest.approx(3 * 3 * 4 * 8 * tokens / rows / 100)
    assert seconds["sketch"] == pytest.approx((tokens + corpus.validation.tokens) * measured.SKETCH_OVERHEAD / 100)
    assert found["bytes"]["sketches"] == (36 + 6) * (16 * 4 + 24)


def test_the_planned_sketches_are_as_large_as_the_real_ones(recipe, tmp_path, capsys):
    assert main(["sketch", recipe, "sketch.dim=400", "--quiet"]) == 0
    assert main(["run", recipe, "sketch.dim=400", "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["bytes"]
    real = sum(path.stat().st_size for path in (tmp_path / "run" / "sketches").glob("*.safetensors"))
    assert planned["sketches"] == pytest.approx(real, rel=0.05)
    weights = (tmp_path / "run" / "meta" / "model.safetensors").stat().st_size
    assert planned["at_most"] > planned["sketches"] + 2 * weights  # meta and final


def test_what_a_run_refuses_the_plan_refuses(recipe, capsys):
    assert main(["run", recipe, "--dry-run", "select.keep=9"]) == 2
    assert main(["run", recipe, "--dry-run", "data.folder=nowhere"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (119, "119 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations(seconds, text):
    assert duration(seconds) == text
