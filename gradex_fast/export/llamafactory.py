"""LLaMA-Factory: Parquet files, dataset_info.json and a configuration for `llamafactory-cli train` (read: 0.9.5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gradex_fast.errors import GradexError
from gradex_fast.export import rows, tables
from gradex_fast.export.mixture import Mixture, Piece
from gradex_fast.export.notes import of_the_cut
from gradex_fast.export.training import LOSS, arguments, given, lora, model_name, on_all_tokens
from gradex_fast.files import write_atomically, write_json

CONFIG = "mixture.llamafactory.yaml"
COMMAND = f"llamafactory-cli train {CONFIG}"
FOR = "LLaMA-Factory 0.9.5"

_PROMPTED = {"formatting": "alpaca", "columns": {"prompt": "prompt", "response": "completion"}}

_CONVERSATION = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "observation_tag": "tool",
        "function_tag": "function_call",
        "system_tag": "system",
    },
}
"""Not its formatting `openai`, which adds a system message of its own."""

_BITS = {
    "4bit": {"quantization_bit": 4, "quantization_type": "nf4", "double_quantization": True},
    "8bit": {"quantization_bit": 8},
}


def write(mixture: Mixture, folder: Path) -> list[str]:
    """The files' names, one for each piece."""
    rows.refuse_said(mixture, "LLaMA-Factory")
    chats = rows.require_one_form(mixture, "LLaMA-Factory") == "messages"
    titles = tables.titles(mixture.pieces)
    files = [f"data/{title}.parquet" for title in titles]
    for file, piece in zip(files, mixture.pieces, strict=True):
        # the template `empty` ends no completion
        columns = {"messages": _checked(piece)} if chats else rows.prompted(piece, mixture.eos)
        tables.write_parquet(folder / file, columns, texts=not chats)
    form = _CONVERSATION if chats else _PROMPTED
    sets = {title: {"file_name": file, **form} for title, file in zip(titles, files, strict=True)}
    write_json(folder / "dataset_info.json", sets)
    config = {
        "stage": "sft",
        "do_train": True,
        "dataset": ",".join(titles),
        "dataset_dir": ".",
        **({} if chats else {"template": "empty"}),  # else it reads the tokenizer's own
        "cutoff_len": mixture.recipe.data.max_length,
        "packing": False,
        **given({"train_on_prompt": on_all_tokens(mixture, chats)}),
        **_model(mixture),
        **arguments(mixture),
        "output_dir": "trained",
    }
    comment = f"# cd to this folder, then: {COMMAND}\n# {LOSS}\n"
    write_atomically(folder / CONFIG, comment + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return files


def notes(mixture: Mixture) -> list[str]:
    return of_the_cut(mixture, "LLaMA-Factory")


def _checked(piece: Piece) -> list[list[dict[str, Any]]]:
    """The conversations, all such as LLaMA-Factory takes: it passes others over, and says so in its log only."""
    found = rows.conversations(piece)["messages"]
    for name, turns in zip(piece.ids, found, strict=True):
        spoken = turns[turns[0]["role"] == "system" :]
        roles = [turn["role"] for turn in spoken]
        alternating = roles == ["user", "assistant"] * (len(roles) // 2)
        if not alternating or not roles or any(set(turn) != {"role", "content"} for turn in turns):
            raise GradexError(
                f"{name}: LLaMA-Factory takes role and content alone, user and assistant by turns, at most one system "
                "message before; use --to trl, axolotl or jsonl"
            )
    return found


def _model(mixture: Mixture) -> dict[str, Any]:
    recipe = mixture.recipe.model
    base = {"model_name_or_path": model_name(recipe), "finetuning_type": recipe.adapter} | given(
        {
            "model_revision": recipe.revision,
            "trust_remote_code": recipe.trust_remote_code,
            "disable_gradient_checkpointing": not recipe.gradient_checkpointing,
        }
    )
    if recipe.adapter == "full":
        return base
    adapter = lora(recipe)
    targets = adapter.targets if isinstance(adapter.targets, str) else ",".join(adapter.targets)
    return base | {
        **_BITS.get(recipe.quantization, {}),
        "lora_rank": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "lora_target": "all" if targets == "all-linear" else targets,
    }
