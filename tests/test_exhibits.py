"""The map, the rows and the paths of a report, against their definitions and against a model's real gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import runs
import torch

from gradex_fast import pipeline
from gradex_fast.alignment import alignments, cosines, group_gradients, mean_gradient, plane
from gradex_fast.exhibits import LONGEST, curves, extreme_rows, source_map
from gradex_fast.model import load_model
from gradex_fast.reference.solve import sigmoid
from gradex_fast.types import Sketches


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory) -> pipeline.Run:
    output = tmp_path_factory.mktemp("run") / "run"
    chosen = {"method": "forward", "whole": True, "also": ["backward", "ensemble"]}
    return runs.run(runs.language_tree(inputs, output, select=chosen, sketch={"dim": 64}), until="select")


def loss_gradients(run: pipeline.Run, examples) -> np.ndarray:
    """∇ℓ of every row at θ*, one backward pass each: float64 [n, p]."""
    model = load_model(run.recipe.model, run.recipe.seed, "cpu", trained=run.path / "meta").eval()
    found = []
    for example in examples:
        ids, labels = (torch.from_numpy(part.astype(np.int64))[None] for part in (example.input_ids, example.labels))
        model.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]).double().numpy())
    return np.stack(found)


def test_a_rows_number_is_the_inner_product_of_its_gradient_with_the_targets(finished):
    examples = finished.examples()
    target = loss_gradients(finished, finished.corpus.validation.examples).mean(0)
    truth = loss_gradients(finished, examples) @ target
    found = alignments(finished.estimator.train, mean_gradient(finished.estimator.valid))
    misses = (found.value - truth) / found.error
    assert len(misses) == 36 and np.abs(misses).max() < 4
    assert 0.4 < np.sqrt(np.mean(np.square(misses))) < 2  # one P, so that they are not independent
    assert np.corrcoef(found.value, truth)[0, 1] > 0.6


def sketches(rows: int, dim: int, seed: int = 0) -> Sketches:
    draw = np.random.default_rng(seed)
    g, margin = draw.normal(size=(rows, dim)).astype(np.float32), draw.normal(0, 3, rows)
    return Sketches(g, margin, np.log1p(np.exp(-margin)))


def test_gradients_of_groups_are_those_of_the_logistic_loss():
    rows = sketches(9, 3)
    step = 1e-6
    for start, stop, found in zip((0, 4), (4, 9), group_gradients(rows, np.array([0, 4, 9])), strict=True):
        mine = rows[start:stop]

        def loss(x, mine=mine):
            return np.mean(np.logaddexp(0, -(mine.margin + mine.g.astype(np.float64) @ x)))

        numeric = [(loss(step * e) - loss(-step * e)) / (2 * step) for e in np.eye(3)]
        assert -found == pytest.approx(numeric, rel=1e-5, abs=1e-8)
    assert sigmoid(-np.array([800.0, -800.0])).tolist() == [0.0, 1.0]
    assert np.isnan(group_gradients(rows, np.array([0, 0, 9]))[0]).all()


def test_a_rows_number_is_how_its_loss_falls_towards_the_target():
    rows, target, step = sketches(9, 3), np.array([0.3, -2.0, 1.0]), 1e-6
    ahead, behind = (
        np.logaddexp(0, -(rows.margin + rows.g.astype(np.float64) @ (sign * step * target))) for sign in (1, -1)
    )
    assert alignments(rows, target).value == pytest.approx((behind - ahead) / (2 * step), rel=1e-4, abs=1e-8)


def test_the_error_of_a_rows_number_is_that_of_random_projections():
    draw = np.random.default_rng(3)
    row, target, dim = draw.normal(size=50), draw.normal(size=50), 20
    p = draw.normal(size=(4000, 50, dim)) / np.sqrt(dim)
    projected = Sketches(np.einsum("a,sad->sd", row, p).astype(np.float32), np.full(4000, -1.0), np.zeros(4000))
    found = [alignments(projected[s : s + 1], target @ p[s]) for s in range(4000)]
    values, errors = (np.array([getattr(one, name)[0] for one in found]) for name in ("value", "error"))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(values.std(), rel=0.1)
    assert values.mean() == pytest.approx(
        sigmoid(-projected.margin)[0] * (row @ target), abs=4 * values.std() / 4000**0.5
    )


def test_the_plane_keeps_what_has_two_dimensions():
    angles = np.array([0.1, 2.0, 3.0, 5.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1) * [[1], [7], [0.5], [2]]
    places, share = plane(np.vstack([vectors[:2], np.zeros((1, 2)), vectors[2:]]))
    assert np.isnan(places[2]).all() and share == pytest.approx(1)
    kept = np.delete(places, 2, 0)
    distances = np.linalg.norm(kept[:, None] - kept[None], axis=2)
    assert distances == pytest.approx(np.sqrt(2 - 2 * np.cos(angles[:, None] - angles)), abs=1e-7)
    assert (places[-1] >= 0).all()
    assert plane(np.eye(4))[1] == pytest.approx(2 / 3)
    assert plane(np.ones((3, 1)))[0].tolist() == [[0, 0]] * 3
    assert np.isnan(cosines(np.zeros((1, 2)), np.ones(2))[0])


def test_the_map_has_every_source_and_the_target(finished):
    found = source_map(finished)
    assert np.array(found["places"]).shape == (4, 2) and len(found["target"]) == 2
    g, weights = finished.train.g[:8].astype(np.float64), sigmoid(-finished.train[:8].margin)
    valid = sigmoid(-finished.validation.margin) @ finished.validation.g.astype(np.float64)
    near = (weights @ g) @ valid / np.linalg.norm(weights @ g) / np.linalg.norm(valid)
    assert found["cosines"][0] == pytest.approx(near)
    assert 0 < found["share"] <= 1 and found["dim"] == 64


def test_extreme_rows_are_the_ends_of_every_source(finished):
    found = {source["name"]: source for source in extreme_rows(finished)}
    order = np.argsort(finished.selection.scores[:4])
    assert list(found) == [finished.corpus.names[i] for i in order]
    values = alignments(finished.estimator.train, mean_gradient(finished.estimator.valid)).value
    for index, source in enumerate(finished.corpus.sources):
        mine = dict(zip([example.id for example in source.examples], values[8 * index : 8 * index + 8], strict=True))
        ranked = sorted(mine, key=mine.get)
        assert [row["id"] for row in found[source.name]["worst"]] == ranked[:3]
        assert [row["id"] for row in found[source.name]["best"]] == ranked[:-4:-1]
        row = found[source.name]["best"][0]
        example = next(example for example in source.examples if example.id == row["id"])
        assert row["value"] == pytest.approx(mine[row["id"]]) and dict(row["text"]) == dict(example.row)


def test_long_rows_are_cut_and_rows_are_in_one_end_only(finished, monkeypatch):
    corpus = finished.corpus
    row = corpus.sources[0].examples[0].row
    monkeypatch.setitem(row, "prompt", "x" * 1000)
    monkeypatch.setattr("gradex_fast.exhibits.SHOWN_ROWS", 5)
    for source in extreme_rows(finished):
        assert (len(source["best"]), len(source["worst"])) == (4, 4)
        assert len({row["id"] for end in ("best", "worst") for row in source[end]}) == 8
        for text in (text for end in ("best", "worst") for row in source[end] for _, text in row["text"]):
            assert len(text) <= LONGEST + 1


def test_curves_are_the_estimates_of_the_sets_on_the_path(finished):
    found = curves(finished)
    assert list(found) == ["forward", "backward"]
    assert [point["sources"] for point in found["forward"]] == [1, 2, 3, 4]
    counts = [point["sources"] for point in found["backward"]]
    assert counts == list(range(3, 3 - len(counts), -1))
    for method, selection in (("forward", finished.selection), ("backward", finished.others["backward"])):
        for point, step in zip(found[method], selection.path, strict=True):
            assert point["loss"] == step["loss"] and point["low"] < point["loss"] < point["high"]
    chosen = finished.estimator.estimate([list(finished.selection.chosen)])
    at = found["forward"][finished.selection.details["steps"] - 1]
    assert at["low"] == pytest.approx(chosen.low[0]) and at["loss"] == min(p["loss"] for p in found["forward"])
