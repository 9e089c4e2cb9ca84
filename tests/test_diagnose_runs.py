"""Diagnoses as they are asked for: part by part, again, on little data, from the command line, without matplotlib."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import runs
from diagnoses import diagnosed, tree
from test_anchors import broken_where

from gradex_fast import cli, finetuning
from gradex_fast.diagnose import DEFAULT, PARTS, diagnose, directions, figures
from gradex_fast.errors import GradexError
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe
from gradex_fast.sketch import Sketcher

pytestmark = pytest.mark.usefixtures("one_thread")


FEW = {"subsets": 2, "path": 0, "dims": [8, 16]}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The work that is done: "train" for each training, "sketch" for each batch."""
    calls: list[str] = []

    def count(owner, name: str, what: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **named: (calls.append(what), real(*a, **named))[1])

    count(finetuning, "train", "train")
    count(directions, "train", "train")
    count(Sketcher, "__call__", "sketch")
    return calls


def test_each_part_is_made_once_whatever_is_asked_for_when(inputs, tmp_path, counted):
    recipe = tree("full", inputs, tmp_path / "run")
    first = diagnosed(recipe, ["truth"])
    assert list(first.parts) == ["truth"]
    done = len(counted)
    again = diagnosed(recipe, ["dim", "truth"])
    assert list(again.parts) == ["truth", "dim"] and again.parts["truth"] == first.parts["truth"]
    assert counted[done:] == ["sketch"] * 4  # once at d = 24: three shards of training rows, one of validation rows
    (again.folder / "diagnosis.json").unlink()
    done = len(counted)
    assert diagnosed(recipe, ["dim", "truth"]).parts == again.parts  # from the fine-tunings and sketches on disk
    assert len(counted) == done
    written = json.loads((again.folder / "diagnosis.json").read_text())
    assert set(written["parts"]) == {"truth", "dim"}


def test_anchors_are_the_first_of_the_subsets(inputs, tmp_path, counted):
    recipe = tree("full", inputs, tmp_path / "run", estimate={"anchors": 3})
    count = len(diagnosed(recipe, ["truth"]).parts["truth"].rows)
    distinct = len(set(json.loads((tmp_path / "run/manifest.json").read_text())["done"]) - {"sketch"})
    assert counted.count("train") <= 1 + 3 + count - 1  # the meta-training, the anchors, and what they are not
    assert counted.count("train") == distinct


def test_another_setting_measures_again(inputs, tmp_path, counted):
    recipe = tree("classifier", inputs, tmp_path / "run", diagnose={"subsets": 3, "path": 0})
    assert [row["ridge"] for row in diagnosed(recipe, ["ridge"]).parts["ridge"].rows] == [1.0, 10.0]
    done = len(counted)
    other = diagnosed(runs.merged(recipe, diagnose={"ridges": [3]}), ["ridge"])
    assert [row["ridge"] for row in other.parts["ridge"].rows] == [30.0]
    assert len(counted) == done
    with pytest.raises(GradexError, match=r"diagnose\.ridges"):
        Recipe.build(runs.merged(recipe, diagnose={"ridges": [0]}))


def test_it_says_before_it_starts_what_it_costs(inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "write", lambda *_: None)
    recipe = Recipe.build(tree("full", inputs, tmp_path / "run", diagnose={"subsets": 2, "path": 1}))
    for _ in range(2):
        diagnose(recipe, ["rrss", "truth", "dim", "curvature"], reporter=Reporter())
    said = re.findall(r"^diagnose.*$", capsys.readouterr().err, re.MULTILINE)
    done = json.loads((tmp_path / "run/manifest.json").read_text())["done"]
    trained = len(set(done) - {"meta", "sketch"}) + 1  # and a step
    assert said[0].startswith(f"diagnose rrss truth dim curvature: {trained} fine-tunings from θ*; 1 sketching passes")
    assert re.search(r"42 rows \(d = 24\), one of \d+ tokens; 9 backward passes of one row, 9 evaluations", said[0])
    assert said[1] == "diagnose: everything is there"


def test_overwrite_throws_the_diagnosis_away(inputs, tmp_path, counted):
    recipe = tree("full", inputs, tmp_path / "run")
    diagnosed(recipe, ["rrss"])
    (tmp_path / "run/diagnosis/old").write_text("")
    diagnosed(recipe, ["rrss"], overwrite=True)
    assert not (tmp_path / "run/diagnosis/old").exists() and counted.count("train") == 4


def test_one_source(inputs, tmp_path):
    target = {"validation": {"path": "validation.jsonl"}}
    data = {"sources": [{"path": "copy.jsonl"}], "target": target}
    base = runs.language_tree(inputs, tmp_path / "run")
    recipe = runs.merged(tree("full", inputs, tmp_path / "run"), data={**base["data"], **data}, diagnose={"path": 1})
    found = diagnosed(recipe)
    (random,) = (row for row in found.parts["truth"].summary if row["subsets"] == "random")
    assert random["count"] == 1  # there is no other subset
    written = json.loads((found.folder / "diagnosis.json").read_text())
    assert written["parts"]["dim"]["rows"][0]["spearman"] is None
    assert len(figures.write(tmp_path, {name: found.parts[name] for name in ("truth", "dim")})) == 2


def test_columns_of_tensorsketch_are_not_nested_and_are_sketched_apart(inputs, tmp_path):
    recipe = tree("full", inputs, tmp_path / "run", sketch={"distribution": "tensorsketch"}, diagnose=FEW)
    found = diagnosed(recipe, ["rrss", "dim"])
    assert {path.name for path in found.folder.glob("sketches*")} == {"sketches-sequence-8"}
    for row in found.parts["rrss"].rows:
        if row["direction"] == "estimated":
            assert row["rrss_sketched"] == pytest.approx(row["rrss"], rel=0.02, abs=1e-9)


def test_rows_without_a_finite_gradient_are_not_looked_at(inputs, tmp_path, monkeypatch):
    broken_where(monkeypatch, lambda lengths: lengths == lengths.max())
    recipe = tree("full", inputs, tmp_path / "run", sketch={"on_nonfinite": "skip", "batch_tokens": 1000})
    assert all(row["rrss_sketched"] is not None for row in diagnosed(recipe, ["rrss"]).parts["rrss"].rows)


def test_every_part_leaves_a_csv_and_a_figure(inputs, tmp_path):
    found = diagnosed(tree("classifier", inputs, tmp_path / "run"), drawn=True)
    for name, part in found.parts.items():
        rows = list(csv.DictReader((found.folder / f"{name}.csv").open()))
        assert len(rows) == len(part.rows) and list(rows[0]) == list(part.rows[0])
        assert (found.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_command(inputs, tmp_path, capsys):
    recipe = str(runs.write_recipe(tmp_path / "recipe.yaml", tree("full", inputs, tmp_path / "run")))
    assert cli.main(["diagnose", recipe, "--parts", "truth", "diagnose.path=1", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "estimate against truth" in out and out.splitlines()[-1] == f"diagnosis: {tmp_path / 'run' / 'diagnosis'}"
    assert cli.main(["diagnose", recipe, "diagnose.path=1", "--json", "--parts", "truth"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("cost")["rows"][-1]["work"] == "together"
    written = json.loads((tmp_path / "run/diagnosis/diagnosis.json").read_text())
    assert printed == written["parts"] and [row["subsets"] for row in printed["truth"]["summary"]] == ["random", "path"]
    assert cli.main(["diagnose", recipe, "--parts", "horoscope"]) == 2
    assert "no part 'horoscope' of a diagnosis; there are rrss, truth, dim, ridge" in capsys.readouterr().err
    assert set(DEFAULT) < set(PARTS)
    assert Path(tmp_path / "run/diagnosis/truth.csv").exists()
