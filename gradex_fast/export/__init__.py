"""`gradex-fast export`: the chosen mixture of a finished run in the form of other tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradex_fast.errors import GradexError
from gradex_fast.export import axolotl, llamafactory, notes, plain, trl
from gradex_fast.export.mixture import Mixture, read_mixture
from gradex_fast.files import read_json, replacing, write_json

__all__ = ["TOOLS", "export"]

MANIFEST = "export.json"
"""A folder with it may be written again."""

Written = tuple[list[str], dict[str, Any]]
"""The file of each piece, and what else the manifest says."""


def _trainer(tool: Any) -> Callable[[Mixture, Path], Written]:
    def write(mixture: Mixture, folder: Path) -> Written:
        files, said = tool.write(mixture, folder), [*notes.of_training(mixture), *tool.notes(mixture)]
        return files, {"for": tool.FOR, "config": tool.CONFIG, "command": tool.COMMAND, "notes": said}

    return write


def _jsonl(mixture: Mixture, folder: Path) -> Written:
    return plain.write_jsonl(mixture, folder), {"all": "mixture.jsonl"}


def _dataset(mixture: Mixture, folder: Path) -> Written:
    files, as_text = plain.write_dataset(mixture, folder)
    return files, {"json_columns": as_text}


TOOLS: dict[str, Callable[[Mixture, Path], Written]] = {
    "trl": _trainer(trl),
    "axolotl": _trainer(axolotl),
    "llamafactory": _trainer(llamafactory),
    "jsonl": _jsonl,
    "hf-dataset": _dataset,
}


def export(
    run: Path, to: str, out: Path | None = None, overrides: Sequence[str] = (), overwrite: bool = False
) -> dict[str, Any]:
    """Write the chosen mixture of a run, whole sources and the target's own training rows.

    Args:
        run: the run's folder, or its recipe. to: one of `TOOLS`.
        out: where to; None: ``exports/TOOL`` in the run's folder.
        overwrite: replace an earlier export there.

    Returns:
        What `export.json` says: the files, and of each its source, kind and rows.

    Raises:
        GradexError: the run is not finished, its data changed, or its rows are nothing for this tool.
    """
    mixture = read_mixture(run, overrides)
    folder = out or mixture.folder / "exports" / to
    _check(folder, overwrite)
    with replacing(folder) as temporary:
        files, more = TOOLS[to](mixture, temporary)
        pieces = [
            {"file": file, "source": piece.source, "kind": piece.kind, "rows": len(piece.rows)}
            for file, piece in zip(files, mixture.pieces, strict=True)
        ]
        said = [*notes.of_rows(mixture), *more.pop("notes", ())]
        made = {"to": to, "rows": mixture.rows, "pieces": pieces, "notes": said, **more}
        write_json(temporary / MANIFEST, made)
    return {"folder": str(folder), **made}


def _check(folder: Path, overwrite: bool) -> None:
    if not folder.exists() or not any(folder.iterdir()):
        return
    if read_json(folder / MANIFEST) is None:
        raise GradexError(f"{folder} is not empty and holds no export; choose another folder with --out")
    if not overwrite:
        raise GradexError(f"{folder} holds an export; replace it with --overwrite, or choose another with --out")
