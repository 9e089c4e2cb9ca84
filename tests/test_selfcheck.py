"""The first batch is compared with plain autograd: a gradient that the taps miss or mix up stops the run."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from oracle import TOLERANCE, error, oracle, sketched
from tiny import gpt2, llama, random_batch
from torch import nn

from gradex_fast.errors import GradexError
from gradex_fast.sketch import Sketcher


class Decoder(nn.Module):
    """Embedding, layer, head: as little as `token_losses` asks for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.embedding, self.layer, self.head = nn.Embedding(24, 8), nn.Linear(8, 8), nn.Linear(8, 24)

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.head(self.middle(self.embedding(input_ids)).tanh()))


class BehindTheTaps(Decoder):
    """The layer's weight serves a second time, without the layer."""

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) @ self.layer.weight


class TokensFirst(Decoder):
    """The layer sees [t, n, width]; with as many tokens as samples no shape tells."""

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


class Faintly(Decoder):
    """The layer's weight serves a second time, in a thousandth of what it gives."""

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + 1e-3 * (x @ self.layer.weight)


@pytest.mark.parametrize("kind", [BehindTheTaps, TokensFirst, Faintly])
def test_a_layer_that_the_taps_misread_is_found_and_takes_the_slow_way(kind, caplog):
    model, batch = kind(), random_batch("gpt2", samples=9)
    with caplog.at_level(logging.WARNING, logger="gradex_fast"):
        found = Sketcher(model, dim=6)(batch)
    assert all("take the slow way: layer.weight" in record.getMessage() for record in caplog.records) and caplog.records
    assert error(found.g, sketched(oracle(model, batch, "sequence")[0], 6)) <= TOLERANCE
    assert len(Sketcher(model, dim=6, parameters="head")(batch)) == 9


class Mixing(Decoder):
    """Every sample sees the others."""

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x - x.mean(0))


def test_a_model_that_mixes_samples_is_refused():
    with pytest.raises(GradexError, match=r"^self-check: a sample's sketch is .* this model mixes the samples"):
        Sketcher(Mixing(), dim=6)(random_batch("gpt2", samples=9))


def test_a_row_that_is_not_finite_proves_nothing_so_another_is_looked_at():
    model, batch = BehindTheTaps(), random_batch("gpt2")
    batch["input_ids"][batch["input_ids"] == 5] = 6
    batch["input_ids"][2, 0] = 5
    batch["labels"][2, 1] = 7
    model.embedding.weight.data[5] = float("nan")
    sketcher = Sketcher(model, dim=6)
    sketcher(batch)
    assert list(sketcher._capture.slow) == ["layer.weight"]


@pytest.mark.parametrize("model", [Decoder(), gpt2(), llama(), gpt2().bfloat16(), gpt2().double()])
def test_a_sound_model_passes_at_the_cost_of_one_forward_pass(model):
    calls = []
    model.register_forward_pre_hook(lambda _, __, named: calls.append(len(named["input_ids"])), with_kwargs=True)
    sketcher = Sketcher(model, dim=6)
    for _ in range(2):
        sketcher(random_batch("gpt2"))
    assert calls == [5, 1, 5]
