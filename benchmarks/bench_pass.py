"""The time of a sketching pass over that of a plain training pass of the same model and batch, by turns.

    python benchmarks/bench_pass.py --out benchmarks/results/pass.json

A GPT-2 of width 768 and `--layers` layers with random weights, 8 rows of 256 tokens, one thread: every parameter, every
parameter but the embeddings, or a LoRA adapter of rank 16 on all of its Conv1D layers. A plain pass is forward and
backward with the gradients of the same parameters. Processor seconds, the least of `--turns` turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from gradex_fast.batch import Batch
from gradex_fast.cli import calm_libraries
from gradex_fast.losses import token_losses
from gradex_fast.sketch import Sketcher

VOCABULARY, WIDTH, TOKENS, ROWS = 2048, 768, 256, 8


def build(what: str, layers: int) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "n_positions": TOKENS, "n_embd": WIDTH, "n_layer": layers, "n_head": 12}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)).eval()
    if what == "layers":
        for parameter in (model.transformer.wte.weight, model.transformer.wpe.weight):
            parameter.requires_grad_(False)
    if what == "lora":
        targets = ["c_attn", "c_fc", "c_proj"]
        model = get_peft_model(model, LoraConfig(r=16, target_modules=targets, fan_in_fan_out=True))
    return model


def plain_pass(model: nn.Module, batch: Batch) -> None:
    losses, _, _ = token_losses(model, batch)
    losses.sum().backward()
    model.zero_grad()


def least_seconds(ways: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Every way once a turn, so that what else the machine does meets all of them; the first turn is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns + 1):
        for name, way in ways.items():
            start = time.process_time()
            way()
            found[name].append(time.process_time() - start)
    return {name: min(seconds[1:]) for name, seconds in found.items()}


def measure(what: str, layers: int, turns: int) -> dict[str, dict[str, float]]:
    model = build(what, layers)
    ids = torch.randint(0, VOCABULARY, (ROWS, TOKENS))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    ways: dict[str, Callable[[], object]] = {"plain": lambda: plain_pass(model, batch)}
    for distribution in ("gaussian", "tensorsketch") if what == "lora" else ("tensorsketch",):
        for dim in (100, 512):
            sketcher = Sketcher(model, dim=dim, distribution=distribution, threads=1)
            ways[f"{distribution} {dim}"] = lambda sketcher=sketcher: sketcher(batch)
    seconds = least_seconds(ways, turns)
    return {name: {"seconds": value, "of a plain pass": value / seconds["plain"]} for name, value in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    calm_libraries()
    found = {}
    for what in ("all", "layers", "lora"):
        found[what] = measure(what, options.layers, options.turns)
        print(what, json.dumps(found[what]), flush=True)
    if options.out:
        options.out.write_text(json.dumps({"layers": options.layers, "turns": options.turns, **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
