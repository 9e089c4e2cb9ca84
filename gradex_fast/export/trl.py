"""trl: Parquet files of one form, and a configuration for `trl sft --config` (read: trl 1.16.0).

No `fraction`: it is a source's share of the final mix, and cuts the others so that none is repeated. Whole sources are
concatenated.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gradex_fast.data.chat import marks_turns
from gradex_fast.export import rows, tables
from gradex_fast.export.mixture import Mixture, Piece, count_kinds
from gradex_fast.export.training import LOSS, arguments, given, lora, model_name, on_all_tokens
from gradex_fast.files import write_atomically
from gradex_fast.model import computing_type, load_tokenizer

CONFIG = "mixture.trl.yaml"
COMMAND = f"trl sft --config {CONFIG}"
FOR = "trl 1.16.0"
_BITS = {
    "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "use_bnb_nested_quant": True},
    "8bit": {"load_in_8bit": True},
}


def write(mixture: Mixture, folder: Path) -> list[str]:
    """The files' names, one for each piece."""
    form = rows.require_one_form(mixture, "trl")
    files = [f"data/{title}.parquet" for title in tables.titles(mixture.pieces)]
    text = count_kinds(mixture)["text"] == mixture.rows
    if form != "text":
        _write_conversations([folder / file for file in files], mixture.pieces)
    for file, piece in zip(files, mixture.pieces, strict=True):
        if form == "text":
            tables.write_parquet(folder / file, rows.plain(piece) if text else rows.prompted(piece))
    config = {
        "datasets": [{"path": "parquet", "data_files": file, "split": "train"} for file in files],
        **_model(mixture),
        **arguments(mixture),
        "max_length": mixture.recipe.data.max_length,
        **({"truncation_mode": "keep_end"} if mixture.recipe.data.truncation_side == "left" else {}),
        "packing": False,
        "bf16": False,  # as the run: in the model's own type
        "gradient_checkpointing": mixture.recipe.model.gradient_checkpointing,
        **({} if text else _loss(mixture, form)),
        "output_dir": "trained",
    }
    comment = f"# cd to this folder, then: {COMMAND}\n# {LOSS}\n"
    write_atomically(folder / CONFIG, comment + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return files


def notes(mixture: Mixture) -> list[str]:
    spoken = count_kinds(mixture)["messages"] and not on_all_tokens(mixture, chats=True)
    if not spoken or marks_turns(load_tokenizer(mixture.recipe.model)):
        return []
    return ["the chat template has no {% generation %}: trl has one that has for some models, and stops for others"]


def _loss(mixture: Mixture, form: str) -> dict[str, bool]:
    """Of messages in prompt and completion trl takes both options together, as the run does."""
    if form == "messages":
        return {"assistant_only_loss": not on_all_tokens(mixture, chats=True)}
    completion = {"completion_only_loss": not on_all_tokens(mixture, chats=False)}
    return completion | given({"assistant_only_loss": form == "said" and mixture.recipe.data.assistant_only_loss})


def _write_conversations(paths: Sequence[Path], pieces: Sequence[Piece]) -> None:
    """Columns of one type in all files: trl concatenates them.

    Messages with more than role and content are the type Json of `datasets`: in a table's own each would have the
    keys of all, null, and a chat template takes a null key for one that was set.
    """
    found = [rows.conversations(piece) for piece in pieces]
    if set().union(*(rows.keys_of(column) for each in found for column in each.values())) <= {"role", "content"}:
        for path, each in zip(paths, found, strict=True):
            tables.write_parquet(path, each, texts=False)
        return
    from datasets import Dataset, Features, Json, List

    for path, each in zip(paths, found, strict=True):
        buffer = io.BytesIO()
        Dataset.from_dict(each, features=Features(dict.fromkeys(each, List(Json())))).to_parquet(buffer)
        write_atomically(path, buffer.getvalue())


def _model(mixture: Mixture) -> dict[str, Any]:
    recipe = mixture.recipe.model
    base = {
        "model_name_or_path": model_name(recipe),
        "dtype": computing_type(recipe) if recipe.quantization == "4bit" else recipe.dtype,
        **given(
            {
                "model_revision": recipe.revision,
                "attn_implementation": recipe.attention,
                "trust_remote_code": recipe.trust_remote_code,
            }
        ),
    }
    if recipe.adapter == "full":
        return base
    adapter = lora(recipe)
    return base | {
        **_BITS.get(recipe.quantization, {}),
        "use_peft": True,
        "lora_r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "lora_target_modules": [adapter.targets] if isinstance(adapter.targets, str) else adapter.targets,
    }
