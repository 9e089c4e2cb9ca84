"""Runs small enough for a test: a one-layer model, a few rows, two epochs. A whole run takes a second or two."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from corpora import language_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel, set_seed
from transformers import PreTrainedTokenizerFast as FastTokenizer

from gradex_fast import pipeline
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe

WORDS = ("good", "fine", "great", "bad", "poor", "awful", "film", "plot", "cast", "the", "a", "was", "is")
SOURCES = ("copy", "more", "noise", "reverse")
Tree = dict[str, Any]


def write_inputs(folder: Path) -> Path:
    """Both tiny models and the rows of both tasks, below `folder`."""
    _write_language_model(folder / "gpt2")
    _write_classifier(folder / "bert")
    draw = np.random.default_rng(0)
    parts = {"train": ("copy", 4), "validation": ("copy", 6), "test": ("copy", 5)}
    for name, (kind, count) in {**{kind: (kind, 8) for kind in SOURCES}, **parts}.items():
        _write_rows(folder / f"{name}.jsonl", [_copying(draw, kind) for _ in range(count)])
        _write_rows(folder / f"said-{name}.jsonl", [_said(draw, kind == "reverse") for _ in range(count)])
    return folder


def language_tree(inputs: Path, output: Path, **sections: Any) -> Tree:
    """A recipe of four sources of eight rows for the language model, every parameter trained.

    Each of `sections` is merged into the section of that name.
    """
    tree = {
        "output": str(output),
        "device": "cpu",
        "model": {"name": str(inputs / "gpt2"), "adapter": "full", "dtype": "float32"},
        "data": {
            "folder": str(inputs),
            "sources": [{"path": f"{name}.jsonl"} for name in SOURCES],
            "target": {part: {"path": f"{part}.jsonl"} for part in ("train", "validation", "test")},
            "max_length": 32,
        },
        "train": {"epochs": 2, "learning_rate": 1e-2, "batch_size": 8, "checkpoints": 1},
        "sketch": {"dim": 16, "shard_rows": 16},
        "select": {"subsets": 20},
    }
    return merged(tree, **sections)


def lora_tree(inputs: Path, output: Path, **sections: Any) -> Tree:
    """`language_tree` with a LoRA adapter."""
    lora = {"adapter": "lora", "rank": 2, "alpha": 4, "targets": ["c_attn", "c_fc"]}
    return merged(merged(language_tree(inputs, output), model=lora), **sections)


def classifier_tree(inputs: Path, output: Path, **sections: Any) -> Tree:
    """The same for two-class sentences: a BERT with a LoRA adapter."""
    tree = language_tree(inputs, output)
    tree["model"] = {"name": str(inputs / "bert"), "task": "sequence-classification", "labels": 2, "rank": 2}
    for file in (*tree["data"]["sources"], *tree["data"]["target"].values()):
        file["path"] = f"said-{file['path']}"
    return merged(tree, **sections)


def merged(tree: Tree, **sections: Any) -> Tree:
    """A copy of `tree` in which each of `sections` is merged into the section of that name."""
    tree = copy.deepcopy(tree)
    for name, value in sections.items():
        tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
    return tree


def run(tree: Tree, **options: Any) -> pipeline.Run:
    """Carry out a recipe on one thread: a second one costs a model so small more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pipeline.run(Recipe.build(tree), reporter=Reporter(quiet=True), **options)
    finally:
        torch.set_num_threads(threads)


def write_recipe(path: Path, tree: Tree) -> Path:
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def digests(folder: Path, pattern: str = "**/*") -> dict[str, str]:
    """The content of every file below `folder`, by its relative path."""
    files = [path for path in folder.glob(pattern) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _write_language_model(folder: Path) -> None:
    tokenizer = language_model()
    tokenizer.save_pretrained(folder)
    small = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 1}
    silent = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "pad_token_id": 0}
    set_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **small, **silent)).save_pretrained(folder)


def _write_classifier(folder: Path) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    named = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    FastTokenizer(tokenizer_object=words, **named).save_pretrained(folder)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    set_seed(0)
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, num_labels=2, **small)
    BertForSequenceClassification(config).save_pretrained(folder)


def _copying(draw: np.random.Generator, kind: str) -> dict[str, str]:
    """The target's task is to copy letters; `noise` answers at random, `reverse` backwards."""
    letters = "".join(draw.choice(list("abcdef"), draw.integers(3, 6)))
    answers = {"noise": "".join(draw.permutation(list(letters))), "reverse": letters[::-1]}
    return {"prompt": f"{letters}=", "completion": answers.get(kind, letters)}


def _said(draw: np.random.Generator, flipped: bool) -> dict[str, Any]:
    label = int(draw.integers(2))
    said = " ".join(draw.choice(WORDS[9:], 3)), draw.choice(WORDS[6:9]), draw.choice(WORDS[3 * (1 - label) :][:3])
    return {"text": " ".join(map(str, said)), "label": 1 - label if flipped else label}


def _write_rows(path: Path, rows: list[Tree]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
