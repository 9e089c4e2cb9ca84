"""Selection by real fine-tuning: the losses are those of trainings by hand, each is made once, and all are counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs
import torch

from gradex_fast.baselines import RIVALS, RealEstimator, real
from gradex_fast.errors import GradexError
from gradex_fast.evaluate import evaluate
from gradex_fast.model import load_model
from gradex_fast.progress import Reporter
from gradex_fast.sections import TrainRecipe
from gradex_fast.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def tree(inputs: Path, output: Path, target: bool = True) -> runs.Tree:
    """Three sources, the last of one row; one epoch."""
    plan = runs.lora_tree(inputs, output, train={"epochs": 1})
    del plan["data"]["sources"][3], plan["data"]["target"]["test"]
    plan["data"]["sources"][2]["limit"] = 1
    if not target:
        del plan["data"]["target"]["train"]
    return plan


@pytest.fixture(scope="module")
def original(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("real") / "run"
    runs.run(tree(inputs, output), until="meta")
    return output


@pytest.fixture
def run(inputs: Path, original: Path, tmp_path: Path):
    shutil.copytree(original, tmp_path / "run")
    return runs.run(tree(inputs, tmp_path / "run"), until="meta")


def by_hand(run, members: list[int], folder: Path, start: Path | None = None) -> np.ndarray:
    """Losses of the validation rows after one training on these sources and the target's own rows."""
    model, examples = load_model(run.recipe.model, 0, "cpu", trained=start), run.examples(members)
    with Reporter(quiet=True) as reporter, reporter.stage("by hand") as stage:
        train(model, examples, run.recipe.train, pad_id=run.pad_id, folder=folder, seed=0, stage=stage)
    return evaluate(model, run.corpus.validation.examples, pad_id=run.pad_id, batch_tokens=8192).loss


@pytest.mark.parametrize("start", ["pretrained", "meta"])
def test_losses_are_those_of_a_training_by_hand(run, tmp_path, start):
    found = RealEstimator(run, start=start).estimate([[0, 2], [1]])
    begin = run.path / "meta" if start == "meta" else None
    for x, members in zip(found.x, ([0, 2], [1]), strict=True):
        np.testing.assert_allclose(x, by_hand(run, members, tmp_path / "checkpoints", begin), rtol=1e-6)
    np.testing.assert_allclose(found.loss, found.x.mean(1))
    assert (found.low <= found.loss).all() and (found.loss <= found.high).all()


def test_a_subset_is_trained_once_and_kept(run, monkeypatch):
    first = RealEstimator(run)
    found = first.estimate([[0], [1], [0]])
    assert len(list((run.path / "rivals" / "subsets").glob("*.json"))) == 2
    monkeypatch.setattr(real, "train", None)  # called, it fails
    second = RealEstimator(run)
    np.testing.assert_array_equal(second.estimate([[0], [1]]).x, found.x[:2])
    assert second.cost == first.cost and first.cost.seconds > 0
    with pytest.raises(TypeError):
        second.estimate([[2]])
    for other in (RealEstimator(run, start="meta"), RealEstimator(run, train=TrainRecipe(epochs=2))):
        with pytest.raises(TypeError):  # another start or training is another subset
            other.estimate([[0]])


def test_a_note_that_was_cut_off_is_made_again(run):
    found = RealEstimator(run).estimate([[0]])
    (note,) = (run.path / "rivals" / "subsets").glob("*.json")
    note.write_text(note.read_text()[:40])
    np.testing.assert_array_equal(RealEstimator(run).estimate([[0]]).x, found.x)
    assert json.loads(note.read_text())["rows"] == 12


def test_overwriting_a_run_removes_its_trainings(run, inputs):
    RealEstimator(run).estimate([[0]])
    runs.run(tree(inputs, run.path), until="prepare", overwrite=True)
    assert not (run.path / "rivals").exists()


def test_forward_selection_is_greedy_over_true_losses(run):
    outcome = RIVALS["forward_real"](run)
    path = [step["source"] for step in outcome.selection.path]
    judge, now, best = RealEstimator(run), [], RealEstimator(run).estimate([[]]).loss[0]
    seen = {()}
    while len(now) < 3:
        options = [i for i in range(3) if i not in now]
        losses = judge.estimate([[*now, i] for i in options]).loss
        seen |= {tuple(sorted([*now, i])) for i in options}
        if losses.min() >= best:
            break
        now, best = [*now, options[int(losses.argmin())]], losses.min()
    assert path == now and outcome.selection.chosen == tuple(sorted(now))
    assert outcome.cost.forward_rows == sum(spent(run, members) for members in seen)
    assert outcome.cost.backward_rows == sum(spent(run, members) - 6 for members in seen)


def spent(run, members: tuple[int, ...]) -> int:
    """Rows forward: one epoch over the subset and the target's 4 rows, then 6 validation rows."""
    return len(run.examples(members)) + 6


def test_scores_after_the_search_are_not_its_cost(run):
    estimator = RealEstimator(run)
    mask = np.array([True, True, False, True])
    estimator.estimate(mask[None])
    before = estimator.cost
    estimator.moves().solve(mask, np.array([0, 1]))
    assert estimator.cost == before and estimator.aside.forward_rows == spent(run, (1,)) + spent(run, (0,))


def test_the_ensemble_is_the_mean_of_true_losses(run):
    outcome = RIVALS["ensemble_real"](run, keep=2, subsets=6, fraction=0.67)
    masks = outcome.selection.subsets
    losses = RealEstimator(run).estimate(masks).loss
    expected = [losses[masks[:, i]].mean() for i in range(3)]
    np.testing.assert_allclose(outcome.selection.scores[:3], expected)
    assert outcome.selection.chosen == tuple(sorted(np.argsort(expected)[:2].tolist()))
    subsets = {tuple(np.flatnonzero(mask[:3])) for mask in masks}
    assert outcome.cost.forward_rows == sum(spent(run, members) for members in subsets)


def test_without_target_rows_the_empty_subset_is_the_model_as_it_is(inputs, tmp_path):
    run = runs.run(tree(inputs, tmp_path / "run", target=False), until="prepare")
    estimator = RealEstimator(run)
    assert (estimator.groups, estimator.always) == (3, ())
    model = load_model(run.recipe.model, 0, "cpu")
    untouched = evaluate(model, run.corpus.validation.examples, pad_id=run.pad_id, batch_tokens=8192).loss
    np.testing.assert_allclose(estimator.estimate([[]]).x[0], untouched, rtol=1e-6)
    assert (estimator.cost.forward_rows, estimator.cost.backward_rows) == (6, 0)
    assert len(RIVALS["forward_real"](run, keep=1).selection.chosen) == 1


def test_what_cannot_be_is_refused(inputs, tmp_path, run):
    with pytest.raises(GradexError, match="start is 'scratch', not one of pretrained, meta"):
        RealEstimator(run, start="scratch")
    fresh = runs.run(tree(inputs, tmp_path / "fresh"), until="prepare")
    with pytest.raises(GradexError, match="the run has no 'meta' stage yet"):
        RIVALS["forward_real"](fresh, start="meta")
    with pytest.raises(GradexError, match="keep = 4, but there are 3 sources"):
        RIVALS["forward_real"](run, keep=4)


@pytest.mark.parametrize(
    "recipe",
    [{"epochs": 2, "batch_size": 3}, {"steps": 5, "batch_size": 5}, {"steps": 4, "batch_size": 2, "accumulation": 2}],
)
def test_passes_are_those_that_the_model_sees(run, tmp_path, recipe):
    recipe = TrainRecipe(checkpoints=0, **recipe)
    model, examples, seen = load_model(run.recipe.model, 0, "cpu"), run.examples([0]), []

    def count(module: torch.nn.Module, arguments: tuple, named: dict) -> None:
        seen.append((len(named["attention_mask"]), int(named["attention_mask"].sum())))

    model.register_forward_pre_hook(count, with_kwargs=True)
    with Reporter(quiet=True) as reporter, reporter.stage("counted") as stage:
        train(model, examples, recipe, pad_id=run.pad_id, folder=tmp_path / "counted", seed=0, stage=stage)
    rows, tokens = np.sum(seen, axis=0)
    cost = run.passes.training(examples, recipe)
    assert (cost.forward_rows, cost.backward_rows) == (rows, rows)
    assert cost.forward_tokens == pytest.approx(tokens, rel=0 if recipe.steps is None else 0.2)
