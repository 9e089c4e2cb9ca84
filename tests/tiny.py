"""Models of a few thousand random weights, batches and rows for them, and a tokenizer of characters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from gradex_fast.batch import Batch
from gradex_fast.types import UNSUPERVISED, Example

VOCABULARY = 24
CHARACTERS = "0123456789+=|,abcdefgh"
"""Tokens 2 ... 23 of `char_tokenizer`; 0 pads, 1 ends."""


def gpt2(**options) -> nn.Module:
    """Conv1D layers, learned positions, a head tied to the token embedding."""
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=16, n_embd=16, n_layer=2, n_head=2, **options)
    return built(GPT2LMHeadModel, config)


def llama(**options) -> nn.Module:
    """RMSNorm, rotary positions, two query heads to a key."""
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "max_position_embeddings": 32}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return built(LlamaForCausalLM, LlamaConfig(vocab_size=VOCABULARY, **{**sizes, **heads, **options}))


def bert(**options) -> nn.Module:
    """A classifier with biases everywhere and an embedding with padding_idx."""
    sizes = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "max_position_embeddings": 16}
    config = BertConfig(vocab_size=VOCABULARY, **sizes, num_attention_heads=2, num_labels=3, **options)
    return built(BertForSequenceClassification, config)


def t5(**options) -> nn.Module:
    """Encoder and decoder, one embedding for both and the head, a table of relative distances."""
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 20, "num_layers": 2, "num_heads": 2}
    start = {"decoder_start_token_id": 0, "tie_word_embeddings": True}
    return built(T5ForConditionalGeneration, T5Config(vocab_size=VOCABULARY, **sizes, **start, **options))


MODELS: dict[str, Callable[..., nn.Module]] = {"gpt2": gpt2, "llama": llama, "bert": bert, "t5": t5}
SOME = {"gpt2": ["c_attn"], "llama": ["q_proj", "down_proj"], "bert": ["query", "value"], "t5": ["q", "wo"]}


def built(kind: type[nn.Module], config) -> nn.Module:
    """Far enough from its initialisation that every parameter has a gradient of its own."""
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def with_lora(model: nn.Module, targets: str | list[str] = "all-linear") -> nn.Module:
    """LoRA of rank 3; B is not zero, so that A has a gradient too."""
    kind = "SEQ_CLS" if hasattr(model, "classifier") else None
    wrapped = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules=targets, task_type=kind))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return wrapped


def adapted(name: str, adapter: str, **options) -> nn.Module:
    """`adapter`: "full", "all" (LoRA on every linear layer) or "some"."""
    model = MODELS[name](**options)
    return model if adapter == "full" else with_lora(model, "all-linear" if adapter == "all" else SOME[name])


def random_batch(name: str, samples: int = 5, length: int = 9, side: str = "right", seed: int = 0) -> Batch:
    """Rows of different lengths padded at `side`; the last has one supervised token."""
    random = np.random.default_rng(seed)
    ids = torch.from_numpy(random.integers(2, VOCABULARY, (samples, length)))
    mask = torch.zeros(samples, length, dtype=torch.long)
    labels = torch.full_like(ids, UNSUPERVISED)
    for row in range(samples):
        kept = length - 2 * row % 5
        begin = 0 if side == "right" else length - kept
        first = begin + kept - (1 if row == samples - 1 else 1 + kept // 2)
        mask[row, begin : begin + kept] = 1
        labels[row, first : begin + kept] = ids[row, first : begin + kept]
    batch = {"input_ids": torch.where(mask == 1, ids, 0), "attention_mask": mask, "labels": labels}
    if name == "bert":
        batch["labels"] = torch.arange(samples) % 3
    elif name == "t5":  # five target tokens: as many as there are samples, the shape that hides a wrong axis
        batch["labels"] = torch.where(torch.arange(5) < mask.sum(1, keepdim=True) - 4, ids[:, :5], UNSUPERVISED)
    return batch


def random_examples(lengths: list[int], seed: int = 0, supervised: int = 3) -> list[Example]:
    """Decoder-only rows of these lengths; their last tokens are supervised."""
    random = np.random.default_rng(seed)
    examples = []
    for index, length in enumerate(lengths):
        ids = random.integers(2, VOCABULARY, length).astype(np.int32)
        labels = np.where(np.arange(length) < max(1, length - supervised), UNSUPERVISED, ids).astype(np.int32)
        examples.append(Example(f"s/{index}", ids, labels, f"{index:016x}"))
    return examples


def char_tokenizer(folder: Path, pad: bool = True, eos: bool = True) -> PreTrainedTokenizerFast:
    """One token a character, saved in `folder`."""
    words = {"<pad>": 0, "<eos>": 1} | {character: 2 + i for i, character in enumerate(CHARACTERS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    special = {name: token for name, token, on in (("pad_token", "<pad>", pad), ("eos_token", "<eos>", eos)) if on}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(folder)
    return fast
