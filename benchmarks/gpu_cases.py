"""Llama-3-8B with LoRA, the tensors of its layers, and projections by torch that the measures compare with."""

from __future__ import annotations

import math
import zlib

import torch

from gradex_fast.bench.models import CONFIGS
from gradex_fast.bench.shapes import Shape

RANK, DIM = 16, 128
"""Of LoRA, and of the projection."""

ROWS, TOKENS = 16, 512
"""A batch of Llama's."""

TINY = {
    "vocab_size": 1000,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}

LINEARS = {
    "q_proj": (4096, 4096),
    "k_proj": (4096, 1024),
    "v_proj": (4096, 1024),
    "o_proj": (4096, 4096),
    "gate_proj": (4096, 14_336),
    "up_proj": (4096, 14_336),
    "down_proj": (14_336, 4096),
}
"""The linear layers of one of Llama's 32 blocks: inputs, outputs."""

LORA_PARAMETERS = 41_943_040
"""Rank 16 on all linear layers but the head: Σ r (inputs + outputs) over the 32 blocks."""


def lora_shapes(quick: bool = False) -> dict[str, Shape]:
    """Both matrices of LoRA on every linear layer of one block: A reads the layer's input, B gives its output."""
    shrink, rows, tokens = (64, 2, 16) if quick else (1, ROWS, TOKENS)
    shapes = {}
    for name, (inputs, outputs) in LINEARS.items():
        shapes[f"{name}.lora_A"] = Shape(rows, tokens, inputs // shrink, RANK)
        shapes[f"{name}.lora_B"] = Shape(rows, tokens, RANK, outputs // shrink)
    return shapes


def make_llama(device: str, quick: bool) -> torch.nn.Module:
    """Llama-3-8B made on the device from its config, random bfloat16 weights and adapters, in evaluation mode.

    LoRA's B is not left at 0, where A would have no gradient.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(**(CONFIGS["llama-3-8b"] | (TINY if quick else {})), use_cache=False)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    adapter = LoraConfig(r=RANK, target_modules=list(LINEARS))
    model = get_peft_model(model, adapter, autocast_adapter_dtype=False)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in trained.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    count = sum(parameter.numel() for parameter in trained.values())
    assert quick or count == LORA_PARAMETERS, count
    return model.eval()


class TorchProjection:
    """gradients · P / √d with P [p, d] bfloat16 from torch.randn, in blocks of its rows.

    Args:
        keep: whether a block is made once and kept, or made anew at every use.
    """

    BLOCK = 1 << 18

    def __init__(self, dim: int, device: str, keep: bool) -> None:
        self._dim, self._device, self._keep = dim, device, keep
        self._blocks: dict[tuple[str, int], torch.Tensor] = {}
        self._generator = torch.Generator(device)
        self.sketches: torch.Tensor | float = 0.0

    def __call__(self, name: str, gradients: torch.Tensor) -> None:
        """sketches [n, d] += gradients [n, p] · P / √d, in float32 from block to block."""
        for start in range(0, gradients.shape[1], self.BLOCK):
            part = gradients[:, start : start + self.BLOCK].to(torch.bfloat16)
            product = part @ self._block(name, start, part.shape[1])
            self.sketches = self.sketches + product.float() / math.sqrt(self._dim)

    def _block(self, name: str, start: int, rows: int) -> torch.Tensor:
        if (name, start) in self._blocks:
            return self._blocks[name, start]
        self._generator.manual_seed(zlib.crc32(f"{name} {start}".encode()))
        options = {"dtype": torch.bfloat16, "device": self._device, "generator": self._generator}
        block = torch.randn(rows, self._dim, **options)
        if self._keep:
            self._blocks[name, start] = block
        return block
