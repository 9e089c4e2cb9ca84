"""The paper's noisy addition (§3.3, Figure 2): 20 groups of five-digit sums, half of them with random digits.

Everything is made here: data, character tokenizer and a two-layer GPT-2, which then go through the ordinary pipeline.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed

from gradex_fast.files import write_atomically
from gradex_fast.recipe import Recipe
from gradex_fast.workspace import Workspace

CHARACTERS = "0123456789+=|"
DIGITS = 5


@dataclass(frozen=True)
class DemoSize:
    groups: int = 20
    rows: int = 25
    validation: int = 200
    steps: int = 400
    anchor_steps: int = 60
    anchors: int = 6
    subsets: int = 1000
    dim: int = 100


FULL = DemoSize()
SHORT = DemoSize(subsets=300, anchors=3, validation=100)


@dataclass(frozen=True)
class Demo:
    """A recipe, what its groups truly are ("clean" or "noisy"), and sets to compare the selection with."""

    recipe: Recipe
    labels: tuple[str, ...]
    compare: dict[str, tuple[int, ...]]


def addition_steps(a: int, b: int) -> str:
    """The sum from the right: after each digit the carry and all digits so far, at last the sum itself.

    67013 + 23924 gives ``07|037|0937|10937|90937``.
    """
    steps = []
    for digits in range(1, DIGITS):
        base = 10**digits
        carry, low = divmod(a % base + b % base, base)
        steps.append(f"{carry}{low:0{digits}d}")
    return "|".join([*steps, str(a + b)])


def make_demo(folder: Path, seed: int, size: DemoSize = FULL) -> Demo:
    """Write data and model below `folder`/inputs and return the run.

    Raises:
        GradexError: the folder holds something else; nothing is written.
    """
    recipe = _recipe(folder, seed, size)
    Workspace(recipe)  # refuses a folder of something else
    draw = np.random.default_rng(seed)
    noisy = np.isin(np.arange(size.groups), draw.choice(size.groups, size.groups // 2, replace=False))
    inputs = folder / "inputs"
    owners = np.repeat(np.arange(size.groups), size.rows)
    _write_rows(inputs / "train.jsonl", [{**_row(draw, noisy[i]), "group": f"group {i:02d}"} for i in owners])
    for part in ("validation", "test"):
        _write_rows(inputs / f"{part}.jsonl", [_row(draw, False) for _ in range(size.validation)])
    _write_model(inputs / "model", seed)
    clean, half = np.flatnonzero(~noisy), size.groups // 2
    chance = np.sort(draw.choice(size.groups, half, replace=False))
    compare = {"random": tuple(chance.tolist()), "clean": tuple(clean.tolist())}
    labels = tuple("noisy" if bad else "clean" for bad in noisy)
    return Demo(recipe, labels, compare)


def _row(draw: np.random.Generator, noisy: bool) -> dict[str, str]:
    a, b = draw.integers(10 ** (DIGITS - 1), 10**DIGITS, 2)
    steps = addition_steps(int(a), int(b))
    if noisy:
        steps = "".join(c if c == "|" else str(draw.integers(10)) for c in steps)
    return {"prompt": f"{a}+{b}=", "completion": steps}


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def _write_model(folder: Path, seed: int) -> None:
    """A GPT-2 of two layers, width 64, with random weights, and a tokenizer of single characters."""
    special = ["<pad>", "<eos>", "<unk>"]
    vocabulary = {token: index for index, token in enumerate([*special, *CHARACTERS])}
    characters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    characters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    named = dict(zip(("pad_token", "eos_token", "unk_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=characters, **named).save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=64,
        n_embd=64,
        n_layer=2,
        n_head=4,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    set_seed(seed)
    GPT2LMHeadModel(config).save_pretrained(folder)


def _recipe(folder: Path, seed: int, size: DemoSize) -> Recipe:
    training = {"batch_size": 25, "learning_rate": 3e-3, "schedule": "cosine", "warmup": 0.05, "checkpoints": 1}
    tree = {
        "output": str(folder),
        "seed": seed,
        "device": "cpu",
        "model": {"name": str(folder / "inputs" / "model"), "adapter": "full", "dtype": "float32"},
        "data": {
            "folder": str(folder / "inputs"),
            "sources": {"path": "train.jsonl", "by": "group"},
            "target": {"validation": {"path": "validation.jsonl"}, "test": {"path": "test.jsonl"}},
            "max_length": 64,
        },
        "train": {**training, "steps": size.steps},
        "sketch": {"dim": size.dim},
        "estimate": {
            "anchors": size.anchors,
            "anchor_train": {**training, "steps": size.anchor_steps, "learning_rate": 5e-4},
        },
        "select": {"also": ["forward"], "subsets": size.subsets, "fraction": 0.75},
    }
    return Recipe.build(tree)
