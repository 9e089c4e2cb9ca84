"""Early stopping: when it stops, that the best look's weights come back, and that a kill changes nothing."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from test_train import EXAMPLES, Counter, Killed, equal, model_with_dropout

from gradex_fast.modules import trainable
from gradex_fast.sections import TrainRecipe
from gradex_fast.stopping import EarlyStopping
from gradex_fast.train import train

RECIPE = TrainRecipe(steps=12, learning_rate=1e-2, batch_size=4, checkpoints=3)
"""Checkpoints after 3, 6, 9 and 12 steps."""


class Losses:
    """A loss of the model's own weights that takes given values; remembers the weights at every look."""

    def __init__(self, *values: float) -> None:
        self.values, self.seen = values, []

    def __call__(self, model: torch.nn.Module) -> float:
        self.seen.append({name: p.detach().clone() for name, p in trainable(model).items()})
        return self.values[len(self.seen) - 1]


def trained(folder: Path, losses, every=2, patience=2, last=None, recipe=RECIPE, start=None):
    """The model, its training's looks, and how many steps were counted."""
    model, stage = copy.deepcopy(start or START), Counter(last)
    stopping = EarlyStopping(losses, every, patience, recipe.steps)
    train(model, EXAMPLES, recipe, pad_id=0, folder=folder, seed=3, stage=stage, stopping=stopping)
    return model, stopping, stage.done


START = model_with_dropout()


@pytest.mark.parametrize(
    ("values", "patience", "steps", "best"),
    [
        ((5, 4, 3, 2, 1, 0), 1, 12, 12),  # falls to the end
        ((5, 3, 4, 3.5, 0, 0), 2, 8, 4),  # two looks in a row without a lower one
        ((5, 3, 4, 2, 3, 3), 2, 12, 8),  # one is not enough, and a lower one begins anew
        ((5, 6, 0, 0, 0, 0), 1, 4, 2),
        ((5, 5, 5, 0, 0, 0), 2, 6, 2),  # equal is not lower
        ((5, 6, 7, 8, 9, 9), 9, 12, 2),  # more patience than looks: all steps, and still the best
    ],
)
def test_it_stops_in_time_and_the_best_weights_come_back(tmp_path, values, patience, steps, best):
    losses = Losses(*values)
    model, stopping, done = trained(tmp_path / "t", losses, patience=patience)
    assert (done, stopping.best) == (steps, best)
    assert stopping.looks == {2 * (i + 1): value for i, value in enumerate(values[: steps // 2])}
    kept = losses.seen[best // 2 - 1]
    assert all(torch.equal(p, kept[name]) for name, p in trainable(model).items())
    assert not (tmp_path / "t").exists()


def test_the_last_step_is_looked_at_whatever_the_interval(tmp_path):
    _, stopping, done = trained(tmp_path / "a", Losses(2, 1), every=7)
    assert (stopping.looks, done) == ({7: 2, 12: 1}, 12)
    _, stopping, _ = trained(tmp_path / "b", Losses(2), every=100)
    assert stopping.looks == {12: 2}


def test_looking_changes_no_step(tmp_path):
    plain = copy.deepcopy(START)
    train(plain, EXAMPLES, RECIPE, pad_id=0, folder=tmp_path / "a", seed=3, stage=Counter())
    watched, _, _ = trained(tmp_path / "b", Losses(6, 5, 4, 3, 2, 1))
    assert equal(plain, watched)


def drift(model: torch.nn.Module) -> float:
    """A loss that depends on the weights alone, as a real one does: lowest after some four steps."""
    moved = [(p.detach() - q.detach()).norm() for p, q in zip(model.parameters(), START.parameters(), strict=True)]
    return abs(float(torch.stack(moved).norm()) - 0.86)


@pytest.mark.parametrize("last", range(1, 8))
def test_killed_at_any_step_it_ends_with_the_same_bits(tmp_path, last):
    whole, expected, _ = trained(tmp_path / "whole", drift, every=1, patience=3)
    assert (expected.best, max(expected.looks)) == (4, 7)
    with pytest.raises(Killed):
        trained(tmp_path / "cut", drift, every=1, patience=3, last=last)
    model, stopping, _ = trained(tmp_path / "cut", drift, every=1, patience=3)
    assert equal(whole, model) and stopping.looks == expected.looks and stopping.best == expected.best


def test_a_best_look_before_the_checkpoint_survives_later_ones_that_are_lost(tmp_path):
    def kept(folder: Path) -> set[str]:
        return {path.name for path in folder.glob("look-*")}

    with pytest.raises(Killed):  # the checkpoint after step 9 holds the lower look: nothing goes back behind it
        trained(tmp_path / "late", Losses(5, 1, 2, 0.5, 0.6), patience=4, last=10)
    assert kept(tmp_path / "late") == {"look-8.safetensors"}
    first = Losses(5, 1, 2, 0.5)
    with pytest.raises(Killed):  # the last checkpoint is of step 6
        trained(tmp_path / "t", first, patience=4, last=8)
    assert kept(tmp_path / "t") == {"look-4.safetensors", "look-8.safetensors"}
    again = EarlyStopping(first, 2, 4, 12)
    for step, looks in ((6, {2: 5, 4: 1, 6: 2}), (0, {})):
        again.open(tmp_path / "t", step)
        assert again.looks == looks
    second = Losses(3, 3, 3)  # this time 8, 10 and 12 are no lower than 4
    model, stopping, _ = trained(tmp_path / "t", second, patience=4)
    assert stopping.best == 4 and stopping.looks == {2: 5, 4: 1, 6: 2, 8: 3, 10: 3, 12: 3}
    assert all(torch.equal(p, first.seen[1][name]) for name, p in trainable(model).items())


def test_a_training_that_had_stopped_is_not_gone_on_with(tmp_path, monkeypatch):
    recipe = RECIPE.model_copy(update={"checkpoints": 5})  # after every second step: one of the very step it stops at
    monkeypatch.setattr("gradex_fast.train.remove", lambda folder: None)
    first = Losses(5, 6, 7)
    trained(tmp_path / "t", first, recipe=recipe)
    assert (tmp_path / "t" / "checkpoint-6").exists()
    model, stopping, done = trained(tmp_path / "t", Losses(), recipe=recipe)
    assert (done, stopping.best) == (0, 2)
    assert all(torch.equal(p, first.seen[0][name]) for name, p in trainable(model).items())


def test_without_checkpoints(tmp_path):
    recipe = RECIPE.model_copy(update={"checkpoints": 0})
    losses = Losses(5, 6, 7)
    model, _, done = trained(tmp_path / "t", losses, recipe=recipe)
    assert done == 6
    assert all(torch.equal(p, losses.seen[0][name]) for name, p in trainable(model).items())
