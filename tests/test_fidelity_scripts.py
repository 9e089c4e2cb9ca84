"""The scripts of `benchmarks/fidelity` from rows to tables, at sizes at which their figures mean nothing."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import corpora
import numpy as np
import pytest
from transformers import BertConfig, BertForSequenceClassification, set_seed

sys.path.append(str(Path(__file__).parents[1] / "benchmarks" / "fidelity"))
import addition
import figures
import measured
import sentiment
import tables

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def called(script, *words: str) -> Path:
        results = tmp_path / "results"
        work = [] if script in (tables, figures) else ["--tiny", "--seeds", "0", "--work", str(tmp_path / "work")]
        monkeypatch.setattr(sys, "argv", ["script", "--results", str(results), *work, *words])
        script.main()
        return results

    return called


def test_noisy_addition_comes_to_its_tables_and_figures(call, capsys):
    results = call(addition)
    found = json.loads((results / "addition-0.json").read_text())
    assert found["truth"].keys() >= {"spearman", "calibrated_error", "constant_error", "commit"}
    assert found["rivals"]["separation"].keys() == set(addition.RIVALS)
    assert found["forward"]["real"]["f"] == pytest.approx(found["forward"]["path"][-1]["f"])
    call(addition)
    assert "addition, seed 0, forward: known" in capsys.readouterr().out
    assert json.loads((results / "addition-0.json").read_text()) == found
    call(tables), call(figures)
    assert "| addition | Spearman of f̂ and f | ≥ 0.90 |" in (results / "tables.md").read_text()
    assert {path.stem for path in results.glob("*.svg")} >= {"addition-truth", "addition-separation"}


def test_real_text_comes_to_its_tables(call, tmp_path, monkeypatch):
    monkeypatch.setattr(sentiment, "copy_model", tiny_model)
    write_corpora(tmp_path)
    results = call(sentiment, "--data", str(tmp_path), "--parts", "rivals", "greedy", "even", "shares")
    whole = json.loads((results / "sentiment-0.json").read_text())
    found = whole["rivals"]
    assert whole["even"]["finals"].keys() == {f"{name}, as many" for name in sentiment.EVEN}
    assert whole["greedy"]["finals"].keys() == {"gradex forward", "gradex backward"}
    assert len(whole["shares"]["rows"]) == 6
    assert found["finals"].keys() == {*sentiment.RIVALS, "clean"}
    assert len(found["finals"]["all"]["chosen"]) == 20 and sum(found["bad"]) == 12
    assert found["ensemble"]["1000"] == pytest.approx(10 * found["ensemble"]["100"])
    call(tables), call(figures)
    assert "| sentiment | test points above less | ≥ 2 |" in (results / "tables.md").read_text()
    assert (results / "sentiment-finals.svg").exists()


def test_twins_have_the_same_rows_and_flipped_labels(tmp_path):
    write_corpora(tmp_path)
    rows = list(sentiment.sources(tmp_path, 3, random.Random(0)))
    slices = {name: [row for row in rows if row["source"] == name] for name in ("cr-1", "cr-1-flipped")}
    assert len(rows) == 20 * 3
    for row, twin in zip(*slices.values(), strict=True):
        assert row["text"] == twin["text"] and row["label"] == 1 - twin["label"]


def test_intervals_are_students():
    assert measured.mean([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.302653 / np.sqrt(3)))
    assert np.isnan(measured.mean([1.0])[1])


def write_corpora(folder: Path) -> None:
    draw = random.Random(0)
    for corpus in sentiment.SLICES:
        pair = {"text2": "b"} if corpus in ("rte", "boolq") else {"text2": None}
        row = {"split": "train", **pair}
        texts = [{**row, "text": f"{draw.random()}", "label": draw.randrange(2)} for _ in range(40)]
        rows = [
            {**text, "split": split}
            for text, split in zip(texts, ["train"] * 20 + ["dev"] * 10 + ["test"] * 10, strict=True)
        ]
        corpora.jsonl(folder / f"{corpus}.jsonl", rows)


def tiny_model(folder: Path) -> None:
    tokenizer = corpora.characters(pair=True, pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    set_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 6, "num_attention_heads": 1}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
