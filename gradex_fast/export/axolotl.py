"""axolotl: Parquet files in their rows' own form, and a configuration for `axolotl train` (read: axolotl 0.19.0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gradex_fast.errors import GradexError
from gradex_fast.export import rows, tables
from gradex_fast.export.mixture import Mixture, Piece, count_kinds
from gradex_fast.export.notes import of_the_cut
from gradex_fast.export.training import LOSS, given, lora, model_name, on_all_tokens, warmup_steps
from gradex_fast.files import write_atomically

CONFIG = "mixture.axolotl.yaml"
COMMAND = f"axolotl train {CONFIG}"
FOR = "axolotl 0.19.0"

_PROMPTED = {
    "field_instruction": "prompt",
    "field_output": "completion",
    "format": "{instruction}",
    "no_input_format": "{instruction}",
}
"""The prompt as it is, the loss on the completion."""

_BITS = {"4bit": {"adapter": "qlora", "load_in_4bit": True}, "8bit": {"load_in_8bit": True}}
"""qlora is NF4 with quantised constants there."""


def write(mixture: Mixture, folder: Path) -> list[str]:
    """The files' names, one for each piece."""
    rows.refuse_classifiers(mixture, "axolotl")
    rows.refuse_said(mixture, "axolotl")
    files = [f"data/{title}.parquet" for title in tables.titles(mixture.pieces)]
    for file, piece in zip(files, mixture.pieces, strict=True):
        tables.write_parquet(folder / file, _columns(piece), texts=piece.kind != "messages")
    entries = zip(files, mixture.pieces, strict=True)
    config = {
        "datasets": [{"path": file, "ds_type": "parquet", **_type(piece, mixture)} for file, piece in entries],
        **_model(mixture),
        **_training(mixture),
        "output_dir": "trained",
    }
    comment = f"# cd to this folder, then: {COMMAND}\n# {LOSS}\n"
    write_atomically(folder / CONFIG, comment + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return files


def _columns(piece: Piece) -> tables.Columns:
    if piece.kind == "messages":
        return rows.conversations(piece)
    return {"alpaca": rows.alpaca, "text": rows.plain, "completion": rows.prompted}[piece.kind](piece)


def _type(piece: Piece, mixture: Mixture) -> dict[str, Any]:
    """How axolotl reads a piece; its type `alpaca` has the template that the run filled in."""
    if piece.kind == "messages":
        spoken = (turn["role"] for turns in rows.conversations(piece)["messages"] for turn in turns)
        roles = sorted(set(spoken)) if on_all_tokens(mixture, chats=True) else ["assistant"]
        return {"type": "chat_template", "field_messages": "messages", "roles_to_train": roles}
    return {"type": {"alpaca": "alpaca", "text": "completion"}.get(piece.kind, dict(_PROMPTED))}


def _on_inputs(mixture: Mixture) -> bool:
    """Whether prompts are trained on too.

    Raises:
        GradexError: they are, and conversations, for which the option holds as well, only on assistant turns.
    """
    kinds = count_kinds(mixture)
    found = on_all_tokens(mixture, chats=False) and kinds["completion"] + kinds["alpaca"] > 0
    if found and kinds["messages"] and not on_all_tokens(mixture, chats=True):
        raise GradexError(
            f"axolotl's train_on_inputs holds for all rows, but data.completion_only_loss is false and "
            f"{kinds['messages']} rows are conversations with the loss on assistant turns; use --to jsonl or hf-dataset"
        )
    return found


def notes(mixture: Mixture) -> list[str]:
    found = of_the_cut(mixture, "axolotl")
    if split := sum(piece.cut for piece in mixture.pieces if piece.kind == "text"):
        found.append(
            f"axolotl trains on every part of a longer plain text: of {split} rows, where the run had the first"
        )
    if count_kinds(mixture)["messages"] and on_all_tokens(mixture, chats=True):
        found.append("axolotl takes the loss on what every role says, not on the chat template's text between")
    return found


def _model(mixture: Mixture) -> dict[str, Any]:
    recipe = mixture.recipe.model
    base = {"base_model": model_name(recipe)} | given(
        {
            "revision_of_model": recipe.revision,
            "attn_implementation": recipe.attention,
            "trust_remote_code": recipe.trust_remote_code,
        }
    )
    base |= {"chat_template": "tokenizer_default"} if any(p.kind == "messages" for p in mixture.pieces) else {}
    if recipe.adapter == "full":
        return base
    adapter = lora(recipe)
    whole = adapter.targets == "all-linear"
    return base | {
        "adapter": "lora",
        **_BITS.get(recipe.quantization, {}),
        "lora_r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        **({"lora_target_linear": True} if whole else {"lora_target_modules": adapter.targets}),
    }


def _training(mixture: Mixture) -> dict[str, Any]:
    recipe = mixture.recipe.train
    return {
        "sequence_len": mixture.recipe.data.max_length,
        "excess_length_strategy": "truncate",
        "sample_packing": False,
        "train_on_inputs": _on_inputs(mixture),
        "gradient_checkpointing": mixture.recipe.model.gradient_checkpointing,
        "val_set_size": 0.0,
        "micro_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.accumulation,
        **({"max_steps": recipe.steps} if recipe.steps else {"num_epochs": recipe.epochs}),
        "learning_rate": recipe.learning_rate,
        "lr_scheduler": recipe.schedule,
        "warmup_steps": warmup_steps(mixture),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "optimizer": "adamw_torch",
        "bf16": "auto",
        "seed": mixture.recipe.seed,
    }
