"""Sharpness-aware minimisation: the update of Foret et al. (2021, equations 2 and 3), and the way back from w + ε."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_train import EXAMPLES, Counter, Killed, equal, model_with_dropout, run
from tiny import gpt2, random_examples, with_lora
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gradex_fast.batch import collate
from gradex_fast.errors import GradexError
from gradex_fast.losses import sample_losses, token_losses
from gradex_fast.sections import TrainRecipe
from gradex_fast.sharpness import SharpnessAware, perturbed
from gradex_fast.train import train

RHO = 0.3


class Plain:
    """As much of a Trainer as `SharpnessAware` asks for: the loss of a micro-batch, Σ (x·w - y)² of two matrices."""

    def __init__(self) -> None:
        self.accelerator = SimpleNamespace(sync_gradients=False)
        self.points: list[torch.Tensor] = []

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.points.append(model.weight.detach().clone())
        loss = (model(inputs["x"]) - inputs["y"]).square().sum() / num_items_in_batch
        loss.backward()
        return loss.detach()


class Sharp(SharpnessAware, Plain):
    def __init__(self) -> None:
        super().__init__(rho=RHO)


def micro_batches(seed: int = 0) -> tuple[nn.Linear, list[dict[str, torch.Tensor]]]:
    torch.manual_seed(seed)
    model = nn.Linear(4, 2, dtype=torch.float64)
    sizes = (3, 1, 2)
    return model, [{"x": torch.randn(n, 4).double(), "y": torch.randn(n, 2).double()} for n in sizes]


def by_hand(weight: np.ndarray, bias: np.ndarray, batches) -> tuple[np.ndarray, np.ndarray, float]:
    """∇L and L of the mean over all rows, from the formula of least squares."""
    x, y = (torch.cat([batch[key] for batch in batches]).numpy() for key in ("x", "y"))
    miss = x @ weight.T + bias - y
    return 2 * miss.T @ x / len(x), 2 * miss.sum(0) / len(x), float(np.square(miss).sum() / len(x))


def test_a_step_over_micro_batches_is_the_one_of_the_paper():
    model, batches = micro_batches()
    weight, bias = (p.detach().numpy().copy() for p in model.parameters())
    trainer = Sharp()
    losses = []
    for index, batch in enumerate(batches):
        trainer.accelerator.sync_gradients = index == 2
        losses.append(float(trainer.training_step(model, batch, 6)))
    g, g_bias, loss = by_hand(weight, bias, batches)
    norm = np.sqrt(np.square(g).sum() + np.square(g_bias).sum())
    sharp, sharp_bias, _ = by_hand(weight + RHO * g / norm, bias + RHO * g_bias / norm, batches)
    np.testing.assert_allclose(model.weight.grad, sharp, rtol=1e-12)
    np.testing.assert_allclose(model.bias.grad, sharp_bias, rtol=1e-12)
    assert np.abs(sharp - g).max() > 0.1  # another gradient than the plain one
    assert (model.weight.detach().numpy() == weight).all() and (model.bias.detach().numpy() == bias).all()
    assert sum(losses) == pytest.approx(loss)  # what is logged is the loss at w
    assert len({tuple(point.ravel().tolist()) for point in trainer.points}) == 2
    trainer.accelerator.sync_gradients = False
    model.zero_grad()
    trainer.training_step(model, batches[0], 3)  # the next step starts from its own micro-batches
    assert len(trainer._passes) == 1


@pytest.mark.parametrize("where", ["in the second pass", "when it is interrupted"])
def test_weights_come_back_from_an_exception(where):
    model, batches = micro_batches()
    before, trainer = copy.deepcopy(model.state_dict()), Sharp()
    trainer.accelerator.sync_gradients = True
    real, error = Plain.training_step, Killed if where == "in the second pass" else KeyboardInterrupt

    def failing(self, model, inputs, count=None):
        if len(self.points) == 1:
            raise error
        return real(self, model, inputs, count)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(error):
        patch.setattr(Plain, "training_step", failing)
        trainer.training_step(model, batches[0], 3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_perturbation_has_length_rho_and_leaves_no_rounding_behind():
    model = gpt2()
    model.transformer.wpe.weight.requires_grad_(False)
    token_losses(model, collate(EXAMPLES, 0))[0].sum().backward()
    parameters = list(model.parameters())
    before = [p.detach().clone() for p in parameters]
    with perturbed(parameters, 0.7):
        moves = [(p.detach() - q).double() for p, q in zip(parameters, before, strict=True)]
        assert sum(float(m.square().sum()) for m in moves) ** 0.5 == pytest.approx(0.7, rel=1e-4)
        assert not moves[1].any()  # without a gradient
    assert all(torch.equal(p, q) for p, q in zip(parameters, before, strict=True))


def test_where_the_gradient_is_0_nothing_moves():
    model, batches = micro_batches()
    batch = {"x": batches[0]["x"], "y": model(batches[0]["x"]).detach()}
    trainer = Sharp()
    trainer.accelerator.sync_gradients = True
    trainer.training_step(model, batch, 3)
    assert torch.equal(trainer.points[0], trainer.points[1]) and not model.weight.grad.any()


def sharp_gradient(model: nn.Module, examples, rho: float) -> dict[str, torch.Tensor]:
    """∇L(w + ρ g/‖g‖) of the mean over all samples, in one batch."""
    model = copy.deepcopy(model)
    batch = collate(examples, 0)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        losses, supervised, _ = token_losses(model, batch)
        sample_losses(losses, supervised).mean().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    g = gradients()
    norm = torch.stack([one.norm() for one in g.values()]).norm()
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.data += rho * g[name] / norm
    return gradients()


@pytest.mark.parametrize("adapter", ["full", "lora"])
@pytest.mark.parametrize(("batch_size", "accumulation"), [(3, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("clip", [1e9, 1e-3])
def test_what_the_optimiser_gets_in_a_training(tmp_path, adapter, batch_size, accumulation, clip):
    model = gpt2(resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    model = with_lora(model) if adapter == "lora" else model
    examples, seen = random_examples([16, 4, 9], supervised=10), {}
    expected = sharp_gradient(model, examples, 0.1)
    before = copy.deepcopy(model.state_dict())
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}

    def look(optimizer, *_):
        for p in (p for group in optimizer.param_groups for p in group["params"]):
            assert torch.equal(p.detach(), before[names[id(p)]])
            seen[names[id(p)]] = p.grad.clone()

    hook = register_optimizer_step_pre_hook(look)
    recipe = TrainRecipe(epochs=1, batch_size=batch_size, accumulation=accumulation, checkpoints=0, max_grad_norm=clip)
    train(model, examples, recipe, pad_id=0, folder=tmp_path / "t", seed=3, stage=Counter(), sam=0.1)
    hook.remove()
    norm = float(torch.stack([one.norm() for one in expected.values()]).norm())
    scale = min(1.0, clip / norm)
    assert seen.keys() == expected.keys()
    largest = max(float(one.abs().max()) for one in expected.values())
    for name, gradient in expected.items():
        assert (seen[name] - scale * gradient).abs().max() <= 2e-5 * scale * largest, name


def test_a_small_rho_is_a_plain_training_dropout_included(tmp_path):
    start = model_with_dropout("full")
    recipe = TrainRecipe(epochs=1, learning_rate=1e-2, batch_size=4, accumulation=2, checkpoints=0)
    plain = run(tmp_path / "a", copy.deepcopy(start), recipe)
    found = [copy.deepcopy(start) for _ in range(2)]
    for model, rho in zip(found, (1e-9, 0.5), strict=True):
        train(model, EXAMPLES, recipe, pad_id=0, folder=tmp_path / "b", seed=3, stage=Counter(), sam=rho)
    assert equal(found[0], plain) and not equal(found[1], plain)


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path):
    start = model_with_dropout()
    recipe = TrainRecipe(epochs=3, learning_rate=1e-2, batch_size=4, checkpoints=3)
    options = {"pad_id": 0, "seed": 3, "sam": 0.1}
    whole, cut = copy.deepcopy(start), copy.deepcopy(start)
    train(whole, EXAMPLES, recipe, folder=tmp_path / "whole", stage=Counter(), **options)
    with pytest.raises(Killed):
        train(copy.deepcopy(start), EXAMPLES, recipe, folder=tmp_path / "cut", stage=Counter(5), **options)
    train(cut, EXAMPLES, recipe, folder=tmp_path / "cut", stage=Counter(), **options)
    assert equal(whole, cut)


def test_a_point_near_by_that_is_not_finite_is_an_error_and_no_step(tmp_path):
    model = gpt2()
    before = copy.deepcopy(model)
    with pytest.raises(GradexError, match=r"the training loss is (nan|inf) at step 1"):
        train(model, EXAMPLES, TrainRecipe(), pad_id=0, folder=tmp_path / "t", seed=3, stage=Counter(), sam=1e30)
    assert equal(model, before)
