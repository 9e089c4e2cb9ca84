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

from gradex_fast.export import rows, tables
from gradex_fast.export.mixture import Mixture, Piece, count_kinds
from gradex_fast.export.training import LOSS, arguments, given, model_name
from gradex_fast.files import write_atomically

CONFIG = "mixture.trl.yaml"


def write(mixture: Mixture, folder: Path) -> list[str]:
    """The files' names, one for each piece."""
    chats = rows.require_text_alone_or_messages_alone(mixture, "trl")
    files = [f"data/{title}.parquet" for title in tables.titles(mixture.pieces)]
    text = not chats and count_kinds(mixture)["text"] == mixture.rows
    if chats:
        _write_conversations([folder / file for file in files], mixture.pieces)
    for file, piece in zip(files, mixture.pieces, strict=True):
        if not chats:
            tables.write_parquet(folder / file, rows.plain(piece) if text else rows.prompted(piece))
    config = {
        "datasets": [{"path": "parquet", "data_files": file, "split": "train"} for file in files],
        **_model(mixture),
        **arguments(mixture),
        "max_length": mixture.recipe.data.max_length,
        "packing": False,
        "bf16": False,  # as the run: in the model's own type
        **({"assistant_only_loss": True} if chats else {} if text else {"completion_only_loss": True}),
        "output_dir": "trained",
    }
    comment = f"# cd to this folder, then: {COMMAND}\n# {LOSS}\n"
    write_atomically(folder / CONFIG, comment + yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return files


COMMAND = f"trl sft --config {CONFIG}"
FOR = "trl 1.16.0"


def _write_conversations(paths: Sequence[Path], pieces: Sequence[Piece]) -> None:
    """Columns messages, of one type in all files: trl concatenates them.

    Messages with more than role and content are the type Json of `datasets`: in a table's own each would have the
    keys of all, null, and a chat template takes a null key for one that was set.
    """
    found = [rows.conversations(piece) for piece in pieces]
    if set().union(*map(rows.keys_of, found)) <= {"role", "content"}:
        for path, each in zip(paths, found, strict=True):
            tables.write_parquet(path, {"messages": each})
        return
    from datasets import Dataset, Features, Json, List

    for path, each in zip(paths, found, strict=True):
        buffer = io.BytesIO()
        Dataset.from_dict({"messages": each}, features=Features({"messages": List(Json())})).to_parquet(buffer)
        write_atomically(path, buffer.getvalue())


def _model(mixture: Mixture) -> dict[str, Any]:
    recipe = mixture.recipe.model
    base = {
        "model_name_or_path": model_name(recipe),
        "dtype": recipe.dtype,
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
    targets = [recipe.targets] if isinstance(recipe.targets, str) else list(recipe.targets)
    return base | {
        "use_peft": True,
        "lora_r": recipe.rank,
        "lora_alpha": recipe.alpha,
        "lora_dropout": recipe.dropout,
        "lora_target_modules": targets,
    }
