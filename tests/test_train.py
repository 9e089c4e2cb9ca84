"""Training: every sample has the same weight, the same call gives the same bits, an interruption changes nothing."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from oracle import oracle
from tiny import gpt2, random_examples, with_lora

from gradex_fast.batch import collate
from gradex_fast.errors import GradexError
from gradex_fast.evaluate import evaluate
from gradex_fast.sections import TrainRecipe
from gradex_fast.train import total_steps, train

RECIPE = TrainRecipe(epochs=3, learning_rate=1e-2, batch_size=4, checkpoints=3)
EXAMPLES = random_examples([9, 4, 12, 6, 16, 7, 5, 11, 8, 10])
"""Three steps an epoch, nine in all; checkpoints after 2, 4, 6 and 8."""


class Killed(Exception):
    pass


class Counter:
    """A stage that dies when it has counted `last` steps."""

    def __init__(self, last: int | None = None) -> None:
        self.done, self.last = 0, last

    def advance(self, amount: int = 1, detail: str = "") -> None:
        self.done += amount
        if self.done == self.last:
            raise Killed


def model_with_dropout(adapter: str = "lora") -> torch.nn.Module:
    """Dropout draws random numbers in every step, so that a resumed run must take up their sequence too."""
    return with_lora(gpt2(resid_pdrop=0.2)) if adapter == "lora" else gpt2(resid_pdrop=0.2)


def run(folder, model, recipe=RECIPE, examples=EXAMPLES, stage=None, seed=3) -> torch.nn.Module:
    train(model, examples, recipe, pad_id=0, folder=folder, seed=seed, stage=stage or Counter())
    return model


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


def mean_loss(model: torch.nn.Module) -> float:
    return float(evaluate(model, EXAMPLES, pad_id=0, batch_tokens=100).loss.mean())


def test_the_loss_falls_and_the_same_call_gives_the_same_bits(tmp_path):
    start, stage = model_with_dropout("full"), Counter()
    one = run(tmp_path / "a", copy.deepcopy(start), stage=stage)
    assert mean_loss(one) < 0.8 * mean_loss(start)
    assert stage.done == 9 and not (tmp_path / "a").exists()
    assert equal(one, run(tmp_path / "b", copy.deepcopy(start)))
    assert not equal(one, run(tmp_path / "c", copy.deepcopy(start), seed=4))


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, adapter):
    start, stage = model_with_dropout(adapter), Counter()
    whole = run(tmp_path / "whole", copy.deepcopy(start))
    with pytest.raises(Killed):
        run(tmp_path / "cut", copy.deepcopy(start), stage=Counter(5))
    assert [path.name for path in tmp_path.glob("cut/checkpoint-*")] == ["checkpoint-4"]
    spoil(tmp_path / "cut")
    model, steps = copy.deepcopy(start), []
    model.register_forward_pre_hook(lambda *_: steps.append(1))
    run(tmp_path / "cut", model, stage=stage)
    assert equal(model, whole) and len(steps) == 5 and stage.done == 9
    assert not (tmp_path / "cut").exists()


def spoil(folder) -> None:
    """Two newer checkpoints that were cut off while they were written."""
    for step, state in ((6, None), (8, '{"global_step": 8, "max_st')):
        broken = folder / f"checkpoint-{step}"
        broken.mkdir()
        (broken / "model.safetensors").write_bytes(b"half")
        if state:
            (broken / "trainer_state.json").write_text(state)


@pytest.mark.parametrize(
    ("lengths", "batch_size", "accumulation"),
    [([16, 4], 2, 1), ([16, 4], 1, 2), ([16, 4, 9], 2, 2)],
)
def test_in_a_step_every_sample_has_the_same_weight(tmp_path, lengths, batch_size, accumulation):
    model = gpt2(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    examples = random_examples(lengths, supervised=10)
    singles, _, _ = oracle(copy.deepcopy(model), collate(examples, 0), "loss")
    total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda gradient, name=name: total[name].add_(gradient))
    recipe = TrainRecipe(epochs=1, batch_size=batch_size, accumulation=accumulation, checkpoints=0)
    stage = Counter()
    run(tmp_path / "t", model, recipe, examples, stage)
    assert stage.done == 1
    for name, rows in singles.items():
        by_hand = rows.mean(0)
        assert np.abs(total[name].numpy().ravel() - by_hand).max() <= 1e-6 + 1e-5 * np.abs(by_hand).max(), name


@pytest.mark.parametrize(
    ("epochs", "batch_size", "accumulation"), [(0.1, 20, 1), (1, 3, 2), (1.5, 4, 1), (1.5, 3, 2), (2.34, 4, 1)]
)
def test_the_number_of_steps_and_rows(tmp_path, epochs, batch_size, accumulation):
    recipe = TrainRecipe(epochs=epochs, batch_size=batch_size, accumulation=accumulation, checkpoints=0)
    model, seen, stage = with_lora(gpt2()), [], Counter()
    model.register_forward_pre_hook(lambda *call: seen.append(len(call[2]["input_ids"])), with_kwargs=True)
    run(tmp_path / "t", model, recipe, stage=stage)
    assert stage.done == total_steps(len(EXAMPLES), recipe)
    in_a_step = batch_size * accumulation
    assert math.ceil(epochs * 10) <= sum(seen) <= math.ceil(epochs * 10) + in_a_step


def test_steps_are_counted_in_place_of_epochs(tmp_path):
    recipe, stage = TrainRecipe(steps=7, batch_size=4, checkpoints=0), Counter()
    run(tmp_path / "t", with_lora(gpt2()), recipe, stage=stage)
    assert stage.done == total_steps(len(EXAMPLES), recipe) == 7


def test_a_loss_that_is_not_finite_names_the_step(tmp_path):
    broken = gpt2()
    broken.transformer.ln_f.weight.data[0] = float("nan")
    with pytest.raises(GradexError, match=r"^the training loss is nan at step 1: lower .*learning_rate \(now 0.01\)"):
        run(tmp_path / "a", broken)
    wild = TrainRecipe(epochs=3, learning_rate=1e30, batch_size=4, schedule="constant")
    with pytest.raises(GradexError, match="at step 2: "):
        run(tmp_path / "b", gpt2(), wild)


def test_a_last_step_that_leaves_numbers_that_are_not_finite_is_found(tmp_path):
    model = with_lora(gpt2())
    next(p for p in model.parameters() if p.requires_grad).register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(GradexError, match=r"lora_A.* is not finite after the last step: lower train.learning_rate"):
        run(tmp_path / "a", model, TrainRecipe(epochs=1, batch_size=20, checkpoints=0))
