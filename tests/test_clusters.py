"""Runs over clusters of raw rows: every stage after the sketches sees them as sources, and files say which rows."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest
import runs
from processes import KILLED, command

from gradex_fast import clusters, pipeline
from gradex_fast.clustering import ALONE, cluster_rows
from gradex_fast.errors import GradexError
from gradex_fast.sketch import Sketcher
from gradex_fast.types import Sketches

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = {"count": 6}
LONGEST = 12
"""Tokens of a row of five letters."""
NAMED = {"count": 3, "sources": ["more", "reverse"], "method": "agglomerative"}


@pytest.fixture(scope="module", params=["all", "named"])
def finished(request, inputs: Path, tmp_path_factory) -> pipeline.Run:
    output = tmp_path_factory.mktemp("run") / request.param
    cut = ALL if request.param == "all" else NAMED
    return runs.run(runs.lora_tree(inputs, output, clusters=cut, select={"keep": 2, "subsets": 20}))


def table(run: Path) -> list[dict]:
    return parquet.read_table(run / "clusters.parquet").to_pylist()


def sketched(run: pipeline.Run, inputs: Path, tmp_path: Path) -> Sketches:
    """The same run's sketches in the order of the recipe's rows."""
    copy = shutil.copytree(run.path, tmp_path / "copy")
    return runs.run(runs.lora_tree(inputs, copy, clusters=None), until="sketch").train


def test_the_clusters_are_those_of_the_sketches(finished, inputs, tmp_path):
    g = sketched(finished, inputs, tmp_path).g
    owners = [row["cluster"] for row in table(finished.path)]
    if finished.path.name == "all":
        expected = [f"cluster {label:03d}" for label in cluster_rows(g[:32], 6)]
    else:
        more, reverse = (cluster_rows(g[rows], 3, "agglomerative") for rows in (range(8, 16), range(24, 32)))
        expected = ["copy"] * 8 + [f"more/cluster {label:03d}" for label in more]
        expected += ["noise"] * 8 + [f"reverse/cluster {label:03d}" for label in reverse]
    assert owners == expected
    assert finished.corpus.names == list(dict.fromkeys(owners))


def test_every_row_is_in_one_cluster_and_named(finished):
    found = table(finished.path)
    assert [row["row"] for row in found] == [f"{name}/{i}" for name in runs.SOURCES for i in range(8)]
    assert [row["source"] for row in found] == [name for name in runs.SOURCES for _ in range(8)]
    for source in finished.corpus.sources:
        assert [e.id for e in source.examples] == [row["row"] for row in found if row["cluster"] == source.name]


def test_sketches_follow_their_rows(finished, inputs, tmp_path):
    before, rows = sketched(finished, inputs, tmp_path), [row["row"] for row in table(finished.path)]
    ids = [example.id for source in finished.corpus.sources for example in source.examples]
    order = [rows.index(name) for name in ids]
    assert (finished.train.g[:32] == before.g[order]).all() and (finished.train.loss[:32] == before.loss[order]).all()
    assert (finished.train.g[32:] == before.g[32:]).all() and len(finished.train) == 36


def test_files_and_report_speak_of_clusters_and_say_which_rows(finished):
    names = finished.corpus.names
    chosen = [names[i] for i in finished.selection.chosen]
    owner = {row["row"]: row["cluster"] for row in table(finished.path)}
    written = [json.loads(line) for line in (finished.path / "selected.jsonl").read_text().splitlines()]
    assert [row["_row"] for row in written[:-4]] == [row for name in chosen for row, at in owner.items() if at == name]
    assert all(row["_source"] == owner[row["_row"]] for row in written[:-4])
    assert finished.final["selected"]["rows"] == len(written)
    scores = list(csv.DictReader((finished.path / "scores.csv").open()))
    assert [row["source"] for row in scores] == names
    cut = [row for row in scores if row["source"] not in runs.SOURCES]
    assert cut and all(row["origin"] == "" for row in scores if row not in cut)
    for row in cut:
        counts = Counter(name.partition("/")[0] for name, at in owner.items() if at == row["source"])
        assert dict(part.rsplit(" ", 1) for part in row["origin"].split(", ")) == {k: str(n) for k, n in counts.items()}
    for report in ("report.md", "report.html"):
        text = (finished.path / report).read_text()
        assert all(name in text for name in names) and "clusters.parquet" in text
        assert all(row["origin"] in text for row in cut)


def test_the_reports_tables_are_whole(finished):
    lines = [line for line in (finished.path / "report.md").read_text().splitlines() if line.startswith("|")]
    start = next(i for i, line in enumerate(lines) if line.startswith("| chosen |"))
    widths = {line.count("|") for line in lines[start : start + 2 + len(finished.corpus.names)]}
    assert len(widths) == 1


def test_anchors_are_fine_tuned_on_the_rows_of_clusters(inputs, tmp_path):
    anchors = {"anchors": 3, "anchor_train": {"steps": 1, "batch_size": 8}}
    run = runs.run(runs.lora_tree(inputs, tmp_path / "run", clusters=ALL, estimate=anchors), until="estimate")
    sizes = np.array([len(source.examples) for source in run.corpus.sources])
    noted = [run.workspace.done(f"anchor {i + 1}")["rows"] for i in range(3)]
    assert noted == [4 + sizes[mask[: len(sizes)]].sum() for mask in run.truths]


@pytest.mark.parametrize("finished", ["all"], indirect=True)
@pytest.mark.parametrize("moment", [("os.rename", r"\.clusters\.parquet"), ("open", r"\.selection\.json")])
def test_a_killed_run_has_the_same_clusters(inputs, tmp_path, finished, moment):
    tree = runs.lora_tree(inputs, tmp_path / "run", clusters=ALL, select={"keep": 2, "subsets": 20})
    path = str(runs.write_recipe(tmp_path / "recipe.yaml", tree))
    assert command("run", path, "--quiet", kill_at=moment) == KILLED
    never = ("open", r"\.clusters\.parquet" if "selection" in moment[1] else r"sketches/\.train")
    assert command("run", path, "--quiet", kill_at=never) == 0
    for name in (
        "clusters.parquet",
        "subsets.parquet",
        "scores.csv",
        "selected.jsonl",
        "final/adapter_model.safetensors",
    ):
        assert (tmp_path / "run" / name).read_bytes() == (finished.path / name).read_bytes(), name


def test_clusters_are_kept_made_again_when_asked_for_otherwise_and_mended(inputs, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(clusters, "cluster_rows", lambda *a: calls.append(a) or cluster_rows(*a))
    tree = runs.lora_tree(inputs, tmp_path / "run", clusters=ALL)
    first = runs.run(tree, until="select")
    assert runs.run(tree, until="select").corpus.names == first.corpus.names and len(calls) == 1
    assert len(runs.run(runs.merged(tree, clusters={"count": 5}), until="cluster").corpus.names) == 5
    assert len(runs.run(tree, until="cluster").corpus.names) == 6 and len(calls) == 3
    (tmp_path / "run" / "clusters.parquet").write_bytes(b"damaged")
    assert runs.run(tree, until="select").selection.chosen == first.selection.chosen and len(calls) == 4


def without_gradient(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """The longest rows have a sketch of `value`."""
    real = Sketcher.__call__

    def sketched(self, batch):
        found, lengths = real(self, batch), batch["attention_mask"].sum(1).numpy()
        return Sketches(np.where(lengths[:, None] == LONGEST, np.float32(value), found.g), found.margin, found.loss)

    monkeypatch.setattr(Sketcher, "__call__", sketched)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_rows_without_a_gradient_are_a_source_of_their_own(inputs, tmp_path, monkeypatch, value):
    without_gradient(monkeypatch, value)
    skip = {"on_nonfinite": "skip"}
    run = runs.run(runs.lora_tree(inputs, tmp_path / "run", clusters={"count": 4}, sketch=skip), until="select")
    names = run.corpus.names
    assert "no gradient" in names and len(names) == 5
    rows = run.corpus.sources[names.index("no gradient")].examples
    assert {len(e.input_ids) for e in rows} == {LONGEST}
    assert np.isfinite(run.selection.estimates.loss).all()
    assert all(e in rows for s in run.corpus.sources for e in s.examples if len(e.input_ids) == LONGEST)


def test_a_cluster_of_one_row_is_a_source_and_said(inputs, tmp_path, monkeypatch, capsys):
    alone = np.array([0, 1] + [2] * 30)
    monkeypatch.setattr(clusters, "cluster_rows", lambda *_: alone)
    run = runs.run(runs.lora_tree(inputs, tmp_path / "run", clusters=ALL, select={"keep": 1}))
    assert [len(source.examples) for source in run.corpus.sources] == [1, 1, 30]
    assert "2 of 3 clusters have a single row" in capsys.readouterr().err
    monkeypatch.setattr(clusters, "cluster_rows", lambda *_: np.full(32, ALONE))
    tree = runs.lora_tree(inputs, tmp_path / "other", clusters=ALL, select={"keep": 2})
    with pytest.raises(GradexError, match=r"select.keep is 2, but the rows fell into 1 clusters"):
        runs.run(tree)


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ({"count": 17}, "clusters.count is 17, but the sources together have 32 rows: 16 at most, two rows a cluster"),
        ({"count": 5, "sources": ["copy"]}, "clusters.count is 5, but source 'copy' has 8 rows: 4 at most, two rows"),
        ({"count": 2, "sources": ["cpy"]}, "clusters.sources: there is no source 'cpy'; there are copy, more, noise, "),
        ({"count": 1}, "recipe: clusters.count: Input should be greater than or equal to 2"),
        ({"method": "dbscan"}, "recipe: clusters.method: Input should be 'spectral' or 'agglomerative'"),
        ({"cuont": 5}, "recipe: unknown key 'clusters.cuont'; did you mean 'count'?"),
    ],
)
def test_what_a_recipe_may_not_ask_for(inputs, tmp_path, cut, message):
    with pytest.raises(GradexError) as error:
        runs.run(runs.lora_tree(inputs, tmp_path / "run", clusters=cut))
    assert str(error.value).startswith(message) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_source_may_not_be_called_like_a_cluster(inputs, tmp_path):
    sources = [{"path": "more.jsonl"}, {"path": "copy.jsonl", "name": "more/cluster 001"}]
    cut = {"count": 3, "sources": ["more"]}
    with pytest.raises(GradexError, match="a source is called 'more/cluster 001', like a cluster; give it another"):
        runs.run(runs.lora_tree(inputs, tmp_path / "run", clusters=cut, data={"sources": sources}))


def test_without_scikit_learn_the_run_stops_before_it_trains(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(GradexError, match="clusters need scikit-learn"):
        runs.run(runs.lora_tree(inputs, tmp_path / "run", clusters=ALL))
    assert not (tmp_path / "run").exists()
    runs.run(runs.lora_tree(inputs, tmp_path / "run"), until="sketch")
