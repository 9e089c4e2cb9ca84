"""A Sketcher's rows are those of single backward passes; the model is left as it was."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracle import TOLERANCE, error, oracle, sketched
from tiny import MODELS, adapted, bert, gpt2, llama, random_batch, t5
from torch import nn

from gradex_fast.capture import Capture
from gradex_fast.rows import Padded
from gradex_fast.sketch import Sketcher

DIM = 6


def assert_equals_the_oracle(model, batch, margin: str, tolerance: float = TOLERANCE, **options) -> None:
    gradients, margins, losses = oracle(model, batch, margin)
    found = Sketcher(model, dim=DIM, margin=margin, **options)(batch)
    assert error(found.g, sketched(gradients, DIM, options.get("seed", 0))) <= tolerance
    np.testing.assert_allclose(found.margin, margins, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found.loss, losses, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("margin", ["sequence", "token"])
@pytest.mark.parametrize("adapter", ["all", "some", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_equals_single_rows(name, adapter, margin):
    assert_equals_the_oracle(adapted(name, adapter), random_batch(name), margin)


@pytest.mark.parametrize("name", MODELS)
def test_one_sample_another_seed(name):
    assert_equals_the_oracle(adapted(name, "full"), random_batch(name, samples=1), "sequence", seed=7)


@pytest.mark.parametrize("adapter", ["all", "full"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_padded_at_the_left(name, adapter):
    assert_equals_the_oracle(adapted(name, adapter), random_batch(name, side="left"), "sequence")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_attention_kernels(name, attention):
    assert_equals_the_oracle(adapted(name, "all", attn_implementation=attention), random_batch(name), "token")


@pytest.mark.parametrize("adapter", ["all", "full"])
@pytest.mark.parametrize("name", MODELS)
def test_bfloat16(name, adapter):
    model, batch = adapted(name, adapter).bfloat16(), random_batch(name)
    assert_equals_the_oracle(model, batch, "sequence", tolerance=2e-2)


@pytest.mark.parametrize("build", [gpt2, llama, bert])
def test_a_row_depends_neither_on_the_others_nor_on_the_padding(build):
    batch = random_batch(build.__name__)
    sketcher = Sketcher(build(), dim=DIM)
    together = sketcher(batch)
    for row, length in enumerate(batch["attention_mask"].sum(1)):
        cut = {key: t[row : row + 1, :length] if t.ndim == 2 else t[row : row + 1] for key, t in batch.items()}
        assert error(sketcher(cut).g, together.g[row : row + 1]) <= TOLERANCE


def test_a_pattern_chooses_parameters_and_the_parts_add_up():
    model, batch = adapted("llama", "full"), random_batch("llama")
    gradients, _, _ = oracle(model, batch, "sequence")
    chosen = {name: rows for name, rows in gradients.items() if "mlp" in name}
    found = Sketcher(model, dim=DIM, parameters=r"\.mlp\.")(batch)
    assert len(chosen) == 6 and error(found.g, sketched(chosen, DIM)) <= TOLERANCE
    rest = Sketcher(model, dim=DIM, parameters=r"^(?!.*\.mlp\.)")(batch)
    assert error(found.g + rest.g, Sketcher(model, dim=DIM)(batch).g) <= TOLERANCE


@pytest.mark.parametrize("name", ["gpt2", "t5"])  # T5's table of distances goes the slow way
def test_groups_apart_in_one_pass(name):
    model, batch = adapted(name, "full"), random_batch(name)
    patterns = {"attention": "[aA]ttention|attn", "embeddings": "shared|wte", "norms": r"(layer_norm|ln_\d)\."}
    sketcher = Sketcher(model, dim=DIM, parameters=patterns)
    found, whole = sketcher.by_group(batch), sketcher(batch)
    assert list(found) == list(patterns)
    for group, pattern in patterns.items():
        alone = Sketcher(model, dim=DIM, parameters=pattern)(batch)
        assert error(found[group].g, alone.g) <= TOLERANCE
        np.testing.assert_array_equal(found[group].margin, whole.margin)
    assert error(sum(part.g for part in found.values()), whole.g) <= TOLERANCE


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"parameters": "no such layer"}, "none of the model's 28 .* matches 'no such layer'"),
        ({"parameters": {"a": "attn", "b": "nothing"}}, "matches 'nothing'"),
        ({"parameters": {"a": "c_attn", "b": "attn"}}, r"attn.c_attn.weight is in the groups 'a' and 'b'"),
        ({"margin": "huge"}, "huge"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        Sketcher(gpt2(), **wrong)


def test_the_slow_way_is_announced_once(caplog):
    batch = random_batch("t5")
    with caplog.at_level(logging.WARNING, logger="gradex_fast"):
        sketcher = Sketcher(t5(), dim=DIM)
        sketcher(batch), sketcher(batch)
        Sketcher(llama(), dim=DIM)(random_batch("llama"))
    (record,) = caplog.records
    assert record.getMessage().startswith("128 parameters have no tap")  # two tables of 32 distances, two heads
    assert "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight" in record.getMessage()


class Routed(nn.Module):
    """A decoder one layer of which sees every second token of the whole batch, in one row."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.embedding, self.experts, self.layer = (
            nn.Embedding(24, 8),
            nn.ModuleList([nn.Linear(8, 8)]),
            nn.Linear(8, 8),
        )
        self.head = nn.Linear(8, 24)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        x = self.embedding(input_ids)
        flat, even = x.reshape(-1, 8), input_ids.reshape(-1) % 2 == 0
        mixed = torch.zeros_like(flat)
        mixed[even] = self.layer(flat[even]).tanh() + self.experts[0](flat[even]).tanh()
        return SimpleNamespace(logits=self.head(x + mixed.reshape(x.shape)))


def test_a_layer_that_sees_some_tokens_takes_the_slow_way_and_says_so(caplog):
    with caplog.at_level(logging.WARNING, logger="gradex_fast"):
        assert_equals_the_oracle(Routed(), random_batch("gpt2"), "sequence")
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "72 parameters have no tap and take the slow way: experts.0.weight, experts.0.bias"
    assert second.startswith("72 parameters have no tap and take the slow way: layer.weight, layer.bias (the layer of ")
    assert "for 5 samples: its rows cannot be told apart)" in second


@pytest.mark.parametrize("counts", [(5, 45), (45, 5)])
def test_a_layer_whose_tokens_were_once_as_many_as_the_samples(counts):
    """Two readings of a two-dimensional output, [n, width] and [n · t, width], in one layer: it is routed."""
    layer = nn.Linear(4, 4)
    capture = Capture(layer)
    refused = pytest.raises(NotImplementedError, match=rf"gave \[{counts[1]}, 4\] for 5 samples: its rows cannot be")
    with refused, capture.taps(Padded(5, (9,)), lambda *_: None) as leaf:
        for count in counts:
            torch.autograd.grad(layer(torch.randn(count, 4)).sum(), leaf)


def state(model) -> list:
    modules = [(module.training, len(module._forward_hooks)) for module in model.modules()]
    return modules + [(p.requires_grad, p.grad is None) for p in model.parameters()]


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize(("name", "adapter"), [("gpt2", "all"), ("llama", "full")])
def test_the_model_is_left_as_it_was(name, adapter, broken):
    model, batch = adapted(name, adapter).train(), random_batch(name)
    next(model.children()).eval()  # a mixture of modes
    next(p for p in model.parameters() if p.requires_grad).requires_grad_(False)
    before, values = state(model), [p.detach().clone() for p in model.parameters()]
    sketcher = Sketcher(model, dim=DIM, parameters="1")
    if broken:
        batch["input_ids"][0, 0] = 999
        with pytest.raises(IndexError):
            sketcher(batch)
    else:
        sketcher(batch)
    assert state(model) == before
    assert all(torch.equal(p, value) for p, value in zip(model.parameters(), values, strict=True))


def test_gradient_checkpointing_is_harmless():
    model, batch = adapted("llama", "all").train(), random_batch("llama")
    plain = Sketcher(model, dim=DIM)(batch).g
    model.gradient_checkpointing_enable()
    assert np.array_equal(Sketcher(model, dim=DIM)(batch).g, plain)
