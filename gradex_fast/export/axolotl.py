"""axolotl: Parquet files in their rows' own form, and a configuration for `axolotl train` (read: axolotl 0.19.0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gradex_fast.export import rows, tables
from gradex_fast.export.mixture import Mixture, Piece
from gradex_fast.export.training import LOSS, given, model_name, warmup_steps
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


def write(mixture: Mixture, folder: Path) -> list[str]:
    """The files' names, one for each piece."""
    rows.refuse_classifiers(mixture, "axolotl")
    files = [f"data/{title}.parquet" for title in tables.titles(mixture.pieces)]
    for file, piece in zip(files, mixture.pieces, strict=True):
        tables.write_parquet(folder / file, _columns(piece))
    entries = zip(files, mixture.pieces, strict=True)
    config = {
        "datasets": [{"path": file, "ds_type": "parquet", **_type(piece)} for file, piece in entries],
        **_model(mixture),
        **_training(mixture),
        "output_dir": "trained",
    }
    comment = f"# cd to this folder, then: {COMMAND}\n# {LOSS}\n"
    write_atomically(folder / CONFIG, comment + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return files


def _columns(piece: Piece) -> tables.Columns:
    if piece.kind == "messages":
        return {"messages": rows.conversations(piece)}
    return {"alpaca": rows.alpaca, "text": rows.plain, "completion": rows.prompted}[piece.kind](piece)


def _type(piece: Piece) -> dict[str, Any]:
    """How axolotl reads a piece; its type `alpaca` has the template that the run filled in."""
    if piece.kind == "messages":
        return {"type": "chat_template", "field_messages": "messages", "roles_to_train": ["assistant"]}
    return {"type": {"alpaca": "alpaca", "text": "completion"}.get(piece.kind, dict(_PROMPTED))}


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
    whole = recipe.targets == "all-linear"
    targets = {"lora_target_linear": True} if whole else {"lora_target_modules": _listed(recipe.targets)}
    return base | {
        "adapter": "lora",
        "lora_r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": recipe.dropout,
        **targets,
    }


def _listed(targets: str | tuple[str, ...]) -> str | list[str]:
    return targets if isinstance(targets, str) else list(targets)


def _training(mixture: Mixture) -> dict[str, Any]:
    recipe = mixture.recipe.train
    return {
        "sequence_len": mixture.recipe.data.max_length,
        "excess_length_strategy": "truncate",
        "sample_packing": False,
        "train_on_inputs": False,
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
