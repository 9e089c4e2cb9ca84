"""With TensorSketch the taps, the slow way, the self-check and the lift use one P: that of a parameter's shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracle import TOLERANCE, error, oracle, sketched
from tiny import MODELS, adapted, random_batch
from torch import nn

from gradex_fast import kernels
from gradex_fast.capture import Capture
from gradex_fast.reference.lift import lift
from gradex_fast.rows import Padded
from gradex_fast.sketch import Sketcher
from gradex_fast.terms import Factors, LookUps, Term, width

DIM = 7
PLAN = {"dim": DIM, "seed": 5, "distribution": "tensorsketch"}


def widths(model: nn.Module) -> dict[str, int]:
    return {name: parameter.shape[-1] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("adapter", ["all", "some", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_reference_of_single_rows(name, adapter):
    """Conv1D, tied heads, embeddings by rows, biases, both norms, T5's table; the self-check agrees."""
    model, batch = adapted(name, adapter), random_batch(name)
    gradients, _, _ = oracle(model, batch, "sequence")
    found = Sketcher(model, **PLAN)(batch)
    assert error(found.g, sketched(gradients, **PLAN, widths=widths(model))) <= TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_every_tap_has_its_parameter_s_width(name):
    """Each parameter alone, so that an error in a small one is not lost among the large; the slow ones are left out."""
    model, batch = adapted(name, "full").eval(), random_batch(name)
    capture, seen = Capture(model), set()

    def receive(parameter: str, term: Term) -> None:
        seen.add(parameter)
        assert isinstance(term, Factors | LookUps)
        lines = term.inputs if isinstance(term, Factors) else term.values
        assert lines.shape[-1] == width(model.get_parameter(parameter)), parameter

    with capture.taps(Padded(5), receive) as leaf:
        output = model(**batch)
        torch.autograd.grad(output.loss, leaf)
    assert seen == set(capture.parameters) - set(capture.slow)


@pytest.mark.parametrize("name", MODELS)
def test_each_parameter_alone(name):
    model, batch = adapted(name, "full"), random_batch(name)
    gradients, _, _ = oracle(model, batch, "sequence")
    scale = max(np.linalg.norm(rows, axis=1).max() for rows in gradients.values())
    for parameter, rows in gradients.items():
        found = Sketcher(model, parameters=f"^{parameter}$", **PLAN)
        found._checked = True  # a key's bias cancels in the softmax: its gradient is rounding, which no two runs share
        truth = sketched({parameter: rows}, **PLAN, widths=widths(model))
        assert abs(found(batch).g - truth).max() <= 2 * TOLERANCE * max(abs(truth).max(), scale / 10), parameter


@pytest.mark.parametrize("name", MODELS)
def test_moved_goes_along_the_lift_of_the_same_p(name):
    model, x = adapted(name, "full"), np.linspace(-1, 1, DIM)
    sketcher = Sketcher(model, **PLAN)
    before = {key: p.detach().double().numpy().copy() for key, p in model.named_parameters()}
    with sketcher.moved(x):
        for key, p in model.named_parameters():
            step = lift(x[None], p.numel(), name=key, seed=5, distribution="tensorsketch", width=p.shape[-1])
            expected = before[key] + step.reshape(p.shape)
            np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-6, atol=1e-6, err_msg=key)


def test_first_order_change_of_the_margins_is_g_times_x():
    """h(θ* + lift(x)) - h(θ*) ≈ g · x: a lift by another P than the sketch's would be off by all of it."""
    model, batch = adapted("gpt2", "full").double(), random_batch("gpt2")
    sketcher = Sketcher(model, **PLAN)
    here, x = sketcher(batch), 1e-5 * np.linspace(-1, 1, DIM)
    with sketcher.moved(x):
        there = sketcher(batch)
    np.testing.assert_allclose(there.margin - here.margin, here.g @ x, rtol=0.02, atol=1e-8)


def test_a_scalar_parameter_is_one_line_of_one_element():
    assert width(torch.zeros(())) == 1
    rows = torch.tensor([[2.0], [-3.0]])
    got = kernels.project(rows, name="scale", width=1, **PLAN)
    assert torch.equal(got.abs().sum(1), torch.tensor([2.0, 3.0]))
