"""The margin by its definition, and what moving the model along a sketch does to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import log_probabilities, margin_of
from tiny import adapted, random_batch

from gradex_fast.losses import SMALLEST_LOSS, sequence_margin, token_margin
from gradex_fast.reference.lift import lift
from gradex_fast.sketch import Sketcher

LOSSES = torch.tensor([[1e-4, 0.3, 2.0], [5.0, 40.0, 9.0], [0.7, 9.0, 9.0]], dtype=torch.float64)
SUPERVISED = torch.tensor([[1, 1, 1], [0, 1, 0], [1, 0, 0]], dtype=torch.bool)


def test_softplus_of_minus_the_sequence_margin_is_the_loss():
    margin, _ = sequence_margin(LOSSES, SUPERVISED)
    expected = [(1e-4 + 0.3 + 2.0) / 3, 40.0, 0.7]
    np.testing.assert_allclose(np.logaddexp(0, -margin.numpy()), expected, rtol=1e-14)


def test_the_token_margin_is_the_mean_of_the_tokens_log_odds():
    margin, _ = token_margin(LOSSES, SUPERVISED)
    p = np.exp(-LOSSES.numpy())
    odds = np.log(p) - np.log1p(-p)
    np.testing.assert_allclose(margin, [odds[0].mean(), odds[1, 1], odds[2, 0]], rtol=1e-12)


@pytest.mark.parametrize("margin", [sequence_margin, token_margin])
def test_the_objective_has_the_margins_gradient(margin):
    losses = LOSSES.clone().requires_grad_()
    (found,) = torch.autograd.grad(margin(losses, SUPERVISED)[1].sum(), losses)
    kind = {sequence_margin: "sequence", token_margin: "token"}[margin]
    exact = LOSSES.clone().requires_grad_()
    total = sum(margin_of(-row[seen], kind) for row, seen in zip(exact, SUPERVISED, strict=True))
    torch.testing.assert_close(found, torch.autograd.grad(total, exact)[0], rtol=1e-10, atol=0)


@pytest.mark.parametrize("margin", [sequence_margin, token_margin])
def test_a_loss_of_nothing_gives_a_large_but_finite_margin(margin):
    losses = torch.zeros(2, 3, requires_grad=True)
    found, objective = margin(losses, torch.tensor([[True] * 3, [False] * 3]))
    (gradient,) = torch.autograd.grad(objective.sum(), losses)
    assert found[0] == pytest.approx(-np.log(SMALLEST_LOSS), abs=1e-5)
    assert torch.isfinite(gradient).all() and not gradient[1].any() and torch.isfinite(found).all()


@pytest.mark.parametrize("margin", ["sequence", "token"])
@pytest.mark.parametrize(("name", "adapter"), [("gpt2", "all"), ("gpt2", "full"), ("bert", "full"), ("bert", "all")])
def test_a_small_move_changes_the_margin_by_the_sketch(name, adapter, margin):
    """h(θ* + ε P x / √d) - h(θ* - ε P x / √d) = 2 ε g̃ · x + O(ε³), in models that are float64 throughout."""
    model, batch, step = adapted(name, adapter).double().eval(), random_batch(name), 1e-4
    sketcher = Sketcher(model, dim=20, margin=margin)
    x = np.random.default_rng(0).standard_normal(20)
    expected = sketcher(batch).g @ x
    with torch.no_grad():
        changes = []
        for row in range(5):
            one, sides = {key: value[row : row + 1] for key, value in batch.items()}, []
            for sign in (1, -1):
                with sketcher.moved(sign * step * x):
                    sides.append(margin_of(log_probabilities(model, one), margin).item())
            changes.append((sides[0] - sides[1]) / (2 * step))
    assert np.linalg.norm(changes - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_move_is_the_lift_and_is_undone_to_the_bit(dtype):
    model, x = adapted("gpt2", "some").to(dtype), np.linspace(-3, 3, 10)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    sketcher = Sketcher(model, dim=10, seed=5, parameters="lora_A")
    with pytest.raises(KeyError), sketcher.moved(x):
        for name, p in model.named_parameters():
            step = (p.detach() - before[name]).float().numpy().ravel()
            wanted = lift(x[None], p.numel(), name=name, seed=5)[0] * ("lora_A" in name)
            assert np.abs(step - wanted).max() <= np.abs(wanted).max() * 4 * torch.finfo(dtype).eps
        raise KeyError
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
