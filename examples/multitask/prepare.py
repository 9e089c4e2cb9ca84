"""Makes the multitask example: 57 tasks as sources, one family's held-out rows as target, and a small Llama to tune.

    python examples/multitask/prepare.py --data multitask_shared.jsonl.zst --out multitask
    gradex-fast run examples/multitask/recipe.yaml

The file has one object a row with task, family, instruction, input, output and split (train, test); plain .jsonl does
too. The Llama (15 M parameters) and its tokenizer are trained on the rows' own texts for a minute or five, so that
nothing is downloaded; it knows what these texts look like and no more.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import zstandard
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY, LENGTH = 8192, 128
SHAPE = {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 8, "num_attention_heads": 5}
BATCH, RATE = 8, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("multitask"))
    parser.add_argument("--family", default="legalbench", help="whose test rows are the target")
    parser.add_argument("--rows", type=int, default=60, help="of each task, at most")
    parser.add_argument("--steps", type=int, default=60, help="of the small model's pretraining")
    asked = parser.parse_args()
    rows = list(read(asked.data))
    held_out = [row for row in rows if row["split"] == "test" and row["family"] == asked.family]
    random.Random(0).shuffle(held_out)
    write(asked.out / "sources.jsonl", first([row for row in rows if row["split"] == "train"], asked.rows))
    write(asked.out / "validation.jsonl", held_out[: len(held_out) // 2])
    write(asked.out / "test.jsonl", held_out[len(held_out) // 2 :])
    make_model([f"{prompt(row)}{row['output']}" for row in rows if row["split"] == "train"], asked)
    print(f"wrote {asked.out}; now: gradex-fast run examples/multitask/recipe.yaml data.folder={asked.out}")


def read(path: Path) -> Iterator[dict[str, Any]]:
    opener = zstandard.open if path.suffix == ".zst" else open
    with opener(path, "rb") as stream, io.TextIOWrapper(stream, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    named = ({"task": row["task"], "prompt": prompt(row), "completion": row["output"]} for row in rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in named), encoding="utf-8")


def first(rows: list[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """The first rows of every task, in their order."""
    seen: Counter[str] = Counter()
    for row in rows:
        seen[row["task"]] += 1
        if seen[row["task"]] <= count:
            yield row


def prompt(row: dict[str, Any]) -> str:
    return f"{row['instruction']}\n\n{row['input']}\n\nAnswer: "


def make_model(texts: list[str], asked: argparse.Namespace) -> None:
    tokenizer = make_tokenizer(texts)
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=1024, **SHAPE, **ends)
    model = LlamaForCausalLM(config)
    pretrain(model, [tokenizer(text, truncation=True, max_length=LENGTH)["input_ids"] for text in texts], asked.steps)
    for part in (model, tokenizer):
        part.save_pretrained(asked.out / "model")


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    bytes_of = Tokenizer(models.BPE())
    bytes_of.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_of.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(special.values()), initial_alphabet=alphabet, show_progress=False
    )
    bytes_of.train_from_iterator(texts, trainer)
    bytes_of.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=bytes_of, **special)


def pretrain(model: LlamaForCausalLM, rows: list[list[int]], steps: int) -> None:
    optimiser, draw = torch.optim.AdamW(model.parameters(), RATE), random.Random(0)
    for step in range(steps):
        batch = draw.sample(rows, BATCH)
        longest = max(map(len, batch))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch])
        loss = model(input_ids=ids, attention_mask=(ids != 0).long(), labels=ids.masked_fill(ids == 0, -100)).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if step % 10 == 9:
            print(f"pretraining: step {step + 1} of {steps}, loss {loss.item():.2f}", flush=True)


if __name__ == "__main__":
    main()
