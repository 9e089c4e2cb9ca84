"""Models by name, made from their configurations with random weights: nothing is downloaded for those of the table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoConfig, PreTrainedConfig

from gradex_fast.batch import Batch
from gradex_fast.errors import GradexError
from gradex_fast.model import random_model
from gradex_fast.modules import trainable
from gradex_fast.sections import ModelRecipe
from gradex_fast.types import UNSUPERVISED

_LLAMA_3 = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0},
    "rms_norm_eps": 1e-5,
}

CONFIGS = {
    "gpt2": {"model_type": "gpt2"},
    "llama-3-8b": {
        **_LLAMA_3,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "max_position_embeddings": 8192,
    },
    "llama-3.2-1b": {
        **_LLAMA_3,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "head_dim": 64,
        "max_position_embeddings": 131_072,
        "tie_word_embeddings": True,
    },
    "minilm": {
        "model_type": "bert",
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
    },
    "tiny": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 2, "vocab_size": 1000},
}
"""Of GPT-2 (124M), Llama-3-8B, Llama-3.2-1B (its positions unscaled), all-MiniLM-L6-v2 as a classifier; and one that
has no counterpart."""

TOKENS = 1000
"""Token ids are drawn below it."""

LABELS = 2
"""Classes of an encoder."""


@contextmanager
def recipe_of(name: str, **options: object) -> Iterator[ModelRecipe]:
    """A recipe's model of that name while open: of the table, a folder, a configuration's JSON file or a hub id.

    Args:
        options: other fields of `ModelRecipe`; an encoder's task is classification unless they say otherwise.

    Raises:
        GradexError: there is no such configuration.
    """
    with tempfile.TemporaryDirectory(prefix="gradex-bench-") as folder:
        found, place = _config(name), Path(folder)
        found.save_pretrained(place)
        if type(found) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(found, "is_decoder", False):
            options = {"task": "sequence-classification", "labels": LABELS, **options}
        yield ModelRecipe(name=str(place), **options)


def make_model(recipe: ModelRecipe, device: str, seed: int = 0) -> nn.Module:
    """With random weights on the device, in evaluation mode: dropout would only slow a plain pass down.

    LoRA's B is not left at 0, where A would have no gradient.
    """
    model = random_model(recipe, seed, device)
    for name, parameter in trainable(model).items():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


def make_batch(task: str, rows: int, tokens: int, device: str, supervised: float = 1.0, seed: int = 0) -> Batch:
    """Random tokens without padding, below 1,000 so that any vocabulary has them.

    Args:
        supervised: share of each row's tokens, at its end; of a classifier every row has a label.
    """
    ids = torch.randint(1, TOKENS, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    labels = ids.clone()
    labels[:, : tokens - round(supervised * tokens)] = UNSUPERVISED
    if task == "sequence-classification":
        labels = torch.arange(rows) % LABELS
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _config(name: str) -> PreTrainedConfig:
    if name in CONFIGS:
        return AutoConfig.for_model(**CONFIGS[name])
    path = Path(name)
    looks_local = path.exists() or name.startswith(("/", ".", "~")) or path.suffix == ".json"
    if looks_local and not path.exists():
        raise GradexError(f"bench --model {name!r}: there is no such file or folder")
    try:
        return AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        known = ", ".join(CONFIGS)
        raise GradexError(f"bench --model {name!r} is none of {known}, and no configuration: {said}") from error
