"""The checkpoints of one training: the newest whole one, and their end."""

from __future__ import annotations

import shutil
from pathlib import Path

from gradex_fast.files import read_json


def remove(folder: Path) -> None:
    """Renamed first: killed in the middle, this leaves no checkpoint that looks whole and is not."""
    gone = folder.with_name(f"{folder.name}.gone")
    if gone.exists():
        shutil.rmtree(gone)
    if folder.exists():
        folder.rename(gone)
        shutil.rmtree(gone)


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end."""
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def remove_broken(folder: Path) -> None:
    """The Trainer would take a checkpoint that was cut off for its newest, and delete a whole one."""
    for path in folder.glob("checkpoint-*"):
        if not _is_whole(path):
            shutil.rmtree(path)


def _is_whole(checkpoint: Path) -> bool:
    """The Trainer writes its state file last."""
    return read_json(checkpoint / "trainer_state.json") is not None
