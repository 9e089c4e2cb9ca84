"""PEFT's adapters: each gives the sketches of single rows, by taps or the announced slow way, or is refused by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest import mock

import peft
import pytest
import torch
from families import family
from oracle import TOLERANCE, oracle, sketched
from tiny import random_batch

from gradex_fast.errors import GradexError
from gradex_fast.sketch import Sketcher

DIM = 6
TARGETS = ["q_proj", "v_proj"]
NORMS = ["input_layernorm", "post_attention_layernorm"]


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """BOFT tries to compile a kernel with CXX=gcc and, where it cannot, leaves that to whoever compiles C++ next."""
    with mock.patch.dict(os.environ):
        yield


@dataclass(frozen=True)
class Adapter:
    """A PEFT configuration, a word in the names of those of its parameters that have no tap, and its model."""

    kind: str
    options: dict = field(default_factory=dict)
    slow: str | None = None
    model: str = "llama"

    def build(self) -> torch.nn.Module:
        """With random adapters: the initial ones often have no gradient."""
        wrapped = peft.get_peft_model(family(self.model), getattr(peft, f"{self.kind}Config")(**self.options))
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in wrapped.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        return wrapped


def lora(model: str = "llama", **options) -> Adapter:
    return Adapter("Lora", {"r": 3, "target_modules": TARGETS, **options}, model=model)


EXPERTS = {"target_modules": ["q_proj"], "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
ADAPTERS = {
    "rsLoRA": lora(use_rslora=True),
    "DoRA": lora(use_dora=True),
    "DoRA with dropout": lora(use_dora=True, lora_dropout=0.4),
    "DoRA on Conv1D": lora(model="gpt2", target_modules=["c_attn", "c_proj"], use_dora=True),
    "dropout": lora(lora_dropout=0.4),
    "modules_to_save": lora(modules_to_save=["lm_head", "embed_tokens"]),
    "modules_to_save, a norm": lora(modules_to_save=["norm"]),
    "modules_to_save, a classifier": lora(model="bert", target_modules=["query"], task_type="SEQ_CLS"),
    "bias of LoRA's layers": lora(bias="lora_only"),
    "every bias": lora(bias="all", model="gpt-neox", target_modules=["query_key_value"]),
    "bias of B": lora(lora_bias=True),
    "embedding": lora(target_modules=[*TARGETS, "embed_tokens"]),
    "embedding, DoRA": lora(target_modules=["q_proj", "embed_tokens"], use_dora=True),
    "Conv1D": lora(model="gpt2", target_modules=["c_attn", "c_proj", "c_fc"]),
    "trainable tokens": lora(trainable_token_indices=[3, 4]),
    "trainable tokens, tied": lora(model="llama-tied", trainable_token_indices=[3, 4]),
    "target_parameters": lora(target_modules=[], target_parameters=["q_proj.weight"]),
    "experts": lora(model="mixtral", **EXPERTS),
    "router": lora(model="mixtral", target_modules=["q_proj"], target_parameters=["mlp.gate.weight"]),
    "all of a mixture of experts": lora(model="qwen3-moe", target_modules="all-linear"),
    "LoHa": Adapter("LoHa", {"r": 3, "target_modules": TARGETS}),
    "AdaLoRA": Adapter("AdaLora", {"init_r": 4, "target_r": 2, "total_step": 9, "target_modules": TARGETS}),
    "IA3": Adapter("IA3", {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}),
    "LoKr": Adapter("LoKr", {"r": 3, "target_modules": TARGETS}),
    "OFT": Adapter("OFT", {"oft_block_size": 4, "r": 0, "target_modules": TARGETS}, ""),
    "BOFT": Adapter("BOFT", {"boft_block_size": 4, "target_modules": TARGETS}),
    "VeRA": Adapter("Vera", {"r": 3, "target_modules": ["q_proj"]}),
    "FourierFT": Adapter("FourierFT", {"n_frequency": 5, "target_modules": TARGETS}),
    "HRA": Adapter("HRA", {"r": 2, "target_modules": TARGETS}),
    "norms": Adapter("LNTuning", {"target_modules": NORMS}),
    "adaption prompts": Adapter(
        "AdaptionPrompt", {"adapter_len": 3, "adapter_layers": 2, "task_type": "CAUSAL_LM"}, "adaption_"
    ),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_equals_single_rows(name, caplog):
    adapter = ADAPTERS[name]
    model, batch = adapter.build().train(), random_batch(adapter.model)
    with caplog.at_level(logging.WARNING, logger="gradex_fast"):
        sketcher = Sketcher(model, dim=DIM)
        found = sketcher(batch)
        sketcher(batch)
    gradients, margins, _ = oracle(model, batch, "sequence")
    truth = sketched(gradients, DIM)
    assert abs(found.g - truth).max() <= TOLERANCE * abs(truth).max()  # a row without a trained token has none
    assert abs(found.margin - margins).max() <= TOLERANCE
    slow = [n for n in gradients if adapter.slow is not None and any(w in n for w in adapter.slow.split("|"))]
    announced = [record.args[1] for record in caplog.records if record.name == "gradex_fast.sketch"]
    assert sorted(", ".join(announced).split(", ")) == sorted(slow or [""])


VIRTUAL = {
    "PROMPT_TUNING": "PromptTuning",
    "P_TUNING": "PromptEncoder",
    "PREFIX_TUNING": "PrefixTuning",
}


@pytest.mark.parametrize("name", VIRTUAL)
def test_virtual_tokens_are_refused_by_name(name):
    adapter = Adapter(VIRTUAL[name], {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"})
    with pytest.raises(GradexError, match=f"^{name} puts virtual tokens before every row.*use LoRA"):
        Sketcher(adapter.build())
