"""Every family, adapter and setting: a sketch and a margin are those of a loop over single rows."""

from __future__ import annotations

import re

import pytest
import torch
from families import FAMILIES, NO_SDPA, OTHERS, batch_of, family
from oracle import TOLERANCE, error, oracle, sketched
from tiny import random_batch
from transformers.modeling_layers import GradientCheckpointingLayer

from gradex_fast.sketch import Sketcher

DIM = 6
LOW_PRECISION = 2e-2


def assert_equals_the_oracle(model, batch, tolerance: float = TOLERANCE) -> None:
    gradients, margins, _ = oracle(model, batch, "sequence")
    found = Sketcher(model, dim=DIM)(batch)
    assert error(found.g, sketched(gradients, DIM)) <= tolerance
    assert abs(found.margin - margins).max() <= tolerance * max(1, abs(margins).max())


@pytest.mark.parametrize("adapter", ["attention", "all", "full"])
@pytest.mark.parametrize("name", FAMILIES)
def test_equals_single_rows(name, adapter):
    model = family(name, adapter)
    for side in ("right", "left"):
        assert_equals_the_oracle(model, random_batch(batch_of(name), side=side))


@pytest.mark.parametrize("name", [*FAMILIES, *OTHERS])
def test_what_takes_the_slow_way(name):
    """The full model; a few parameters of a few models have no tap, all others do."""
    known, slow = (FAMILIES[name], "relative_attention_bias") if name in FAMILIES else OTHERS[name]
    model, batch = known.build(), random_batch(batch_of(name), samples=3)
    (sketcher := Sketcher(model, dim=DIM))(batch)
    expected = {key for key, _ in model.named_parameters() if slow and re.search(slow, key)}
    assert set(sketcher._capture.slow) == expected
    if name in OTHERS:
        assert_equals_the_oracle(model, batch)


@pytest.mark.parametrize(
    ("name", "attention"), [(n, a) for n in FAMILIES for a in ("eager", "sdpa") if a == "eager" or n not in NO_SDPA]
)
def test_attention_kernels(name, attention):
    model = family(name, attn_implementation=attention)
    assert model.config._attn_implementation == attention
    assert_equals_the_oracle(model, random_batch(batch_of(name), samples=3))


@pytest.mark.parametrize("adapter", ["all", "full"])
@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16(name, adapter):
    model = family(name, adapter).bfloat16()
    assert_equals_the_oracle(model, random_batch(batch_of(name), samples=3), LOW_PRECISION)


@pytest.mark.parametrize("adapter", ["all", "full"])
@pytest.mark.parametrize("name", FAMILIES)
def test_autocast(name, adapter):
    with torch.autocast("cpu", torch.bfloat16):
        assert_equals_the_oracle(family(name, adapter), random_batch(batch_of(name), samples=3), LOW_PRECISION)


@pytest.mark.parametrize("adapter", ["all", "full"])
@pytest.mark.parametrize("name", FAMILIES)
def test_gradient_checkpointing_recomputes_and_changes_nothing(name, adapter):
    model, batch, calls = family(name, adapter).train(), random_batch(batch_of(name), samples=3), []
    sketcher = Sketcher(model, dim=DIM)
    plain = sketcher(batch)
    block = next(module for module in reversed(list(model.modules())) if isinstance(module, GradientCheckpointingLayer))
    inner = next(m for path, m in block.named_modules() if "attn" in path.lower() or "attention" in path.lower())
    inner.register_forward_hook(lambda module, *_: calls.append(module.training))
    model.gradient_checkpointing_enable()
    again = sketcher(batch)
    assert len(calls) >= 2 and not any(calls)
    assert error(again.g, plain.g) == 0 and (again.margin == plain.margin).all()
    assert block.training and model.config.use_cache
