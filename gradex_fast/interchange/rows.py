"""``rows.parquet`` beside the sketches: the id, margin and loss of every row, which most forms have no place for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gradex_fast.errors import GradexError
from gradex_fast.interchange.foreign import unknown
from gradex_fast.types import Sketches

NAME = "rows.parquet"


def columns(sketches: Sketches, ids: Sequence[str] | None) -> dict[str, Any]:
    """What is said of every row."""
    named = {} if ids is None else {"id": list(ids)}
    return {**named, "margin": np.asarray(sketches.margin), "loss": np.asarray(sketches.loss)}


def write(path: Path, sketches: Sketches, ids: Sequence[str] | None) -> None:
    parquet.write_table(pa.table(columns(sketches, ids)), path)


def read(path: Path, rows: int) -> dict[str, Any]:
    """margin and loss, float64 [n], and ids; of what is not there, what `ForeignSketches` has for it.

    Raises:
        GradexError: the file is damaged, or of another number of rows.
    """
    if not path.is_file():
        return {"margin": unknown(rows), "loss": unknown(rows), "ids": None}
    try:
        table = parquet.read_table(path)
        figures = {name: _figures(table, name) for name in ("margin", "loss")}
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        raise GradexError(f"{path} cannot be read ({str(error).splitlines()[0]}); write the sketches again") from error
    if len(table) != rows:
        raise GradexError(f"{path} has {len(table):,} rows, the sketches beside it {rows:,}; it is of another store")
    return {**figures, "ids": table["id"].to_pylist() if "id" in table.column_names else None}


def _figures(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        return unknown(len(table))
    return table[name].to_numpy().astype(np.float64)
