"""The first-order expansion against its definition in float64, one row at a time."""

from __future__ import annotations

import copy

import numpy as np
import oracle
import pytest
import tiny
import torch

from gradex_fast.batch import collate
from gradex_fast.diagnose.expansion import errors, length, margins, moved, slopes
from gradex_fast.modules import trainable
from gradex_fast.types import Example

MODELS = [("gpt2", "full"), ("gpt2", "some"), ("llama", "all"), ("bert", "full"), ("bert", "some")]
ALL = pytest.mark.parametrize(("name", "adapter"), MODELS)
OPTIONS = {"pad_id": 0, "batch_tokens": 30}


def rows_of(name: str) -> list[Example]:
    examples = tiny.random_examples([9, 5, 12, 7])
    if name != "bert":
        return examples
    return [Example(e.id, e.input_ids, np.array([i % 3], np.int32), e.digest) for i, e in enumerate(examples)]


def random_step(model: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=draw) for name, p in trainable(model).items()}


@ALL
@pytest.mark.parametrize("margin", ["sequence", "token"])
def test_slopes_are_inner_products_with_the_oracles_gradients(name, adapter, margin):
    model, examples = tiny.adapted(name, adapter), rows_of(name)
    steps = [random_step(model, seed) for seed in range(3)]
    exact = copy.deepcopy(model).double()
    for example in examples:
        gradients, _, _ = oracle.oracle(exact, collate([example], 0), margin)
        expected = [sum(gradients[n][0] @ part.double().numpy().ravel() for n, part in s.items()) for s in steps]
        size = np.sqrt(sum(np.square(g).sum() for g in gradients.values())) * length(steps[0])
        found = slopes(model, example, margin, steps, pad_id=0)
        np.testing.assert_allclose(found, expected, atol=oracle.TOLERANCE * size)
    assert all(parameter.grad is None for parameter in model.parameters())


@ALL
def test_margins_and_losses_are_the_oracles(name, adapter):
    model, examples = tiny.adapted(name, adapter), rows_of(name)
    found = margins(model, examples, "sequence", **OPTIONS)
    exact = copy.deepcopy(model).double()
    expected = [oracle.oracle(exact, collate([example], 0), "sequence")[1:] for example in examples]
    np.testing.assert_allclose(found, np.array(expected)[:, :, 0].T, rtol=1e-5, atol=1e-6)


def test_a_moved_model_stands_there_and_comes_back_to_the_bit():
    model, step = tiny.adapted("gpt2", "full"), random_step(tiny.adapted("gpt2", "full"))
    before = {name: parameter.detach().clone() for name, parameter in trainable(model).items()}
    with pytest.raises(KeyError), moved(model, step, 0.5):
        for name, parameter in trainable(model).items():
            torch.testing.assert_close(parameter, before[name] + 0.5 * step[name])
        raise KeyError
    assert all(torch.equal(parameter, before[name]) for name, parameter in trainable(model).items())
    assert length(before) == pytest.approx(float(torch.cat([p.flatten() for p in before.values()]).double().norm()))


@ALL
def test_what_is_left_over_is_of_second_order(name, adapter):
    """Twice the distance: 2⁴ the residual's sum of squares, 2² that of order 0."""
    model, examples = tiny.adapted(name, adapter), rows_of(name)
    step = random_step(model)
    start = margins(model, examples, "sequence", **OPTIONS)[0]
    slope = np.array([slopes(model, example, "sequence", [step], pad_id=0)[0] for example in examples])
    found = []
    for scale in (1e-3, 2e-3):
        with moved(model, step, scale):
            there = margins(model, examples, "sequence", **OPTIONS)
        found.append(errors(start, scale * slope, scale * slope, *there))
    near, far = found
    assert near["rrss"] < 1e-2 * near["rrss_constant"]
    assert far["rrss"] / near["rrss"] == pytest.approx(16, rel=0.25)
    assert far["rrss_constant"] / near["rrss_constant"] == pytest.approx(4, rel=0.25)


def test_the_errors_are_those_of_their_definitions():
    draw = np.random.default_rng(0)
    start, slope, sketched, there = draw.normal(size=(4, 7))
    loss = np.log1p(np.exp(-there))
    found = errors(start, slope, sketched, there, loss)
    residuals = [h - (h0 + s) for h, h0, s in zip(there, start, slope, strict=True)]
    whole = sum(h * h for h in there)
    assert found["rrss"] == pytest.approx(sum(r * r for r in residuals) / whole)
    off = sum((h - (h0 + s)) ** 2 for h, h0, s in zip(there, start, sketched, strict=True))
    assert found["rrss_sketched"] == pytest.approx(off / whole)
    assert found["rrss_constant"] == pytest.approx(sum((there - start) ** 2) / whole)
    each = [r / max(abs(h), abs(h0)) for r, h, h0 in zip(residuals, there, start, strict=True)]
    assert found["rrss_rows"] == pytest.approx(sum(e * e for e in each) / 7)
    lines = [np.log(1 + np.exp(-(h0 + s))) for h0, s in zip(start, slope, strict=True)]
    expected = sum((a - b) ** 2 for a, b in zip(lines, loss, strict=True)) / sum(loss**2)
    assert found["rrss_loss"] == pytest.approx(expected)
