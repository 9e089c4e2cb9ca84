"""No trainer's form: JSON lines, and a data set's folder of `datasets`, with all columns as they were read."""

from __future__ import annotations

from pathlib import Path

from gradex_fast.export import tables
from gradex_fast.export.mixture import Mixture


def write_jsonl(mixture: Mixture, folder: Path) -> list[str]:
    """mixture.jsonl with a column `source`, and each piece's rows as they were in a file of its own."""
    files = [f"data/{title}.jsonl" for title in tables.titles(mixture.pieces)]
    for file, piece in zip(files, mixture.pieces, strict=True):
        tables.write_lines(folder / file, piece.rows)
    tables.write_lines(folder / "mixture.jsonl", (r for piece in mixture.pieces for r in tables.labelled_rows(piece)))
    return files


def write_dataset(mixture: Mixture, folder: Path) -> tuple[list[str], list[str]]:
    """A folder that `datasets.load_from_disk` reads, with a column `source`.

    Returns:
        The folder for each piece, and columns whose values have no common type and are JSON text.
    """
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    table, as_text = tables.as_table([row for piece in mixture.pieces for row in tables.labelled_rows(piece)])
    Dataset(table).save_to_disk(folder / "dataset")
    return ["dataset"] * len(mixture.pieces), as_text
