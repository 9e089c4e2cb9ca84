"""However a step's samples go through the model, its gradient is the same: padded, packed, or in what memory holds."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
from families import family
from test_fitting import Small
from test_train import Counter, Killed, equal
from tiny import MODELS, gpt2, llama, random_examples, with_lora
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gradex_fast.batch import collate
from gradex_fast.errors import GradexError
from gradex_fast.losses import packed_losses, sample_losses, token_losses
from gradex_fast.pieces import Pieces, first_fit, samples
from gradex_fast.sections import TrainRecipe
from gradex_fast.train import train

LENGTHS = [9, 4, 12, 6, 14, 7, 5, 11, 8, 10]
EXAMPLES = random_examples(LENGTHS, supervised=5)
STEP = {"steps": 1, "checkpoints": 0, "max_grad_norm": 1e9}


def gradients(folder, model: nn.Module, sam: float = 0.0, **recipe) -> dict[str, torch.Tensor]:
    """What the optimiser is given in the last step of a training."""
    found: list[dict[str, torch.Tensor]] = []

    def look(*_) -> None:
        found.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})

    hook = register_optimizer_step_pre_hook(look)
    try:
        options = {"pad_id": 0, "folder": folder, "seed": 3, "stage": Counter(), "sam": sam}
        train(model, EXAMPLES, TrainRecipe(**{**STEP, **recipe}), **options)
    finally:
        hook.remove()
    return found[-1]


def assert_same(found, truth, tolerance: float = 1e-5) -> None:
    assert found.keys() == truth.keys()
    size = max(float(gradient.norm()) for gradient in truth.values())
    for name, gradient in truth.items():
        assert float((found[name] - gradient).norm()) <= tolerance * size, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_packed_step_has_the_gradient_of_the_padded_one(tmp_path, name, dtype):
    model = with_lora(MODELS[name]()) if name == "llama" else gpt2(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    model, shapes = model.to(dtype), []
    padded = gradients(tmp_path, copy.deepcopy(model), batch_size=5, accumulation=2)
    model.register_forward_pre_hook(lambda *call: shapes.append(list(call[2]["input_ids"].shape)), with_kwargs=True)
    packed = gradients(tmp_path, model, batch_size=5, accumulation=2, packing=True, packed_tokens=30)
    assert_same(packed, padded)
    del shapes[0]  # that the model keeps packed samples apart
    assert all(rows == 1 and total <= 30 for rows, total in shapes) and len(shapes) < 6
    assert sum(total for _, total in shapes) == sum(LENGTHS)


def test_each_sample_of_a_packed_row_has_its_own_loss():
    model, batch = llama(use_cache=False), collate(EXAMPLES, 0)
    truth = sample_losses(*token_losses(model, batch)[:2])
    lengths = batch["attention_mask"].sum(1).tolist()
    for capacity in (1, 20, 1000):
        rows, pieces = first_fit(lengths, capacity), Pieces(capacity).of(batch)
        assert sorted(index for row in rows for index in row) == list(range(10))
        for row, piece in zip(rows, pieces, strict=True):
            assert samples(piece) == len(row)
            torch.testing.assert_close(packed_losses(model, piece), truth[row])


def test_the_first_token_of_a_sample_is_never_predicted():
    whole = random_examples([6, 7], supervised=7)  # all labels, the first one too
    model, batch = llama(use_cache=False), collate(whole, 0)
    (row,) = Pieces(100).of(batch)
    truth = sample_losses(*token_losses(model, batch)[:2])
    torch.testing.assert_close(packed_losses(model, row), truth[[1, 0]])


def test_first_fit_fills_rows():
    assert first_fit([3, 9, 4, 6, 1], 10) == [[1, 4], [3, 2], [0]]
    assert first_fit([12, 5, 5], 10) == [[0], [1, 2]]


@pytest.mark.parametrize("name", ["opt", "bloom"])
def test_a_model_that_mixes_packed_samples_is_refused_before_the_first_step(tmp_path, name):
    stage = Counter()
    with pytest.raises(GradexError, match=r"does not keep packed samples apart: .*give it padded rows"):
        options = {"pad_id": 0, "folder": tmp_path / "t", "seed": 0, "stage": stage}
        train(family(name), EXAMPLES, TrainRecipe(steps=3, packing=True), **options)
    assert stage.done == 0 and not (tmp_path / "t").exists()


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_an_interrupted_packed_training_ends_with_the_same_bits(tmp_path, adapter):
    start = with_lora(gpt2(resid_pdrop=0.2)) if adapter == "lora" else gpt2(resid_pdrop=0.2)
    recipe = TrainRecipe(epochs=2, learning_rate=1e-2, batch_size=4, checkpoints=2, packing=True, packed_tokens=24)

    def trained(folder: str, last: int | None = None) -> nn.Module:
        model, stage = copy.deepcopy(start), Counter(last)
        train(model, EXAMPLES, recipe, pad_id=0, folder=tmp_path / folder, seed=3, stage=stage)
        assert stage.done == 6  # ceil(10 / 4) steps an epoch
        return model

    whole = trained("whole")
    with pytest.raises(Killed):
        trained("cut", last=3)
    assert equal(trained("cut"), whole)


class LateSmall(torch.autograd.Function):
    """The identity; its backward pass runs out of memory above so many tokens, when half of the gradients are there."""

    tokens, failures = 0, 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        if gradient.shape[0] * gradient.shape[1] > LateSmall.tokens:
            LateSmall.failures += 1
            raise torch.cuda.OutOfMemoryError("none left")
        return gradient


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("sam", [0.0, 0.3])
def test_memory_that_runs_out_in_a_step_does_not_change_it(tmp_path, caplog, sam, packing):
    model = llama()
    options = {"batch_size": 4, "accumulation": 2, "packing": packing, "packed_tokens": 60}
    truth = gradients(tmp_path, copy.deepcopy(model), sam, **options)
    LateSmall.tokens, LateSmall.failures = 30, 0
    hook = model.model.layers[0].register_forward_hook(lambda _, __, output: LateSmall.apply(output))
    with caplog.at_level(logging.WARNING, logger="gradex_fast"):
        found = gradients(tmp_path, model, sam, **options)
    hook.remove()
    assert LateSmall.failures >= 1
    assert_same(found, truth, 2e-5 if sam else 1e-5)
    said = [record.getMessage() for record in caplog.records if record.name == "gradex_fast.trainer"]
    assert len(said) == LateSmall.failures
    assert all(line.startswith("memory ran out: from now on a training pass has at most ") for line in said)


def test_memory_that_runs_out_late_in_a_later_step_redoes_that_step(tmp_path):
    """Its first micro-batch has left its gradients; they count once, and those of the step before not at all."""
    model, options = llama(), {"steps": 2, "batch_size": 2, "accumulation": 2}
    truth = gradients(tmp_path, copy.deepcopy(model), **options)
    passes: list[int] = []

    def fail_once(*call) -> None:
        passes.append(len(call[2]["input_ids"]))
        if len(passes) == 4:
            raise MemoryError

    model.register_forward_pre_hook(fail_once, with_kwargs=True)
    assert_same(gradients(tmp_path, model, **options), truth)
    assert passes == [2, 2, 2, 2, 1, 1, 1, 1]


def test_the_steps_stay_the_recipes_when_memory_is_short(tmp_path):
    model, stage = gpt2(), Counter()
    hardware = Small(model, 30)
    recipe = TrainRecipe(epochs=2, batch_size=5, accumulation=2, checkpoints=0)
    train(model, EXAMPLES, recipe, pad_id=0, folder=tmp_path, seed=0, stage=stage)
    assert stage.done == 2 and sum(rows for rows, _ in hardware.fitted) >= 20
    tried = [rows * width for rows, width in hardware.shapes]
    assert max(tried[-8:]) <= 30  # what did not fit is not tried again


@pytest.mark.parametrize("packing", [False, True])
def test_a_sample_that_does_not_fit_by_itself_is_an_error(tmp_path, packing):
    model = llama()
    LateSmall.tokens = 13
    model.model.layers[0].register_forward_hook(lambda _, __, output: LateSmall.apply(output))
    message = r"^a sample of 14 tokens does not fit in memory by itself \(none left\); set model.gradient_checkpointing"
    with pytest.raises(GradexError, match=message):
        recipe = TrainRecipe(steps=3, batch_size=10, checkpoints=0, packing=packing)
        train(model, EXAMPLES, recipe, pad_id=0, folder=tmp_path, seed=0, stage=Counter())
