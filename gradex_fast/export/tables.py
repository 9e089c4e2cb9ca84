"""Rows to files: names that are safe anywhere, columns with types that no reader has to guess."""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from gradex_fast.errors import GradexError
from gradex_fast.export.mixture import Piece
from gradex_fast.files import write_atomically

Columns = Mapping[str, Sequence[Any]]


def titles(pieces: Sequence[Piece]) -> list[str]:
    """A file's name for each piece, without its ending: its number, and the letters and digits of its source."""
    return [f"{number:03d}-{_slug(piece.source)}" for number, piece in enumerate(pieces, 1)]


def write_parquet(path: Path, columns: Columns, texts: bool = True) -> None:
    """Parquet and not JSON: a reader of JSON takes a column of dates for timestamps, one of nulls for nothing.

    Args:
        texts: all columns are text, also one that is empty.

    Raises:
        GradexError: a column holds values of several types.
    """
    try:
        table = pa.table({name: pa.array(values, pa.string() if texts else None) for name, values in columns.items()})
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        raise GradexError(f"{path.name}: the rows cannot be one table: {_one_line(error)}; use --to jsonl") from error
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(path, buffer.getvalue())


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line. NaN stays NaN, as Python's and Arrow's readers take it; dates become text."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows))


def labelled_rows(piece: Piece) -> list[dict[str, Any]]:
    """The rows with a column `source`; a column that had this name and says something else becomes `_source`."""
    return [_with_source(row, piece.source) for row in piece.rows]


def as_table(rows: Sequence[Mapping[str, Any]]) -> tuple[pa.Table, list[str]]:
    """All columns of all rows, null where a row has none, and which of them had to become JSON text."""
    names, arrays, as_text = dict.fromkeys(name for row in rows for name in row), {}, []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            arrays[name] = pa.array(values)
            same = _same(arrays[name].to_pylist(), values)
        except (pa.ArrowException, UnicodeEncodeError, OverflowError):
            same = False
        if not same:
            arrays[name] = pa.array([None if v is None else json.dumps(v, default=str) for v in values], pa.string())
            as_text.append(name)
    return pa.table(arrays), as_text


def _with_source(row: Mapping[str, Any], source: str) -> dict[str, Any]:
    found = {**row, "source": source}
    if row.get("source", source) != source:
        name = "_source"
        while name in row:
            name = f"_{name}"
        found[name] = row["source"]
    return found


def _same(found: Sequence[Any], given: Sequence[Any]) -> bool:
    """Whether a table gives back what it was given: NaN is itself, 1 is not 1.0; inside a value null is missing."""
    return all(repr(_without_nulls(a)) == repr(_without_nulls(b)) for a, b in zip(found, given, strict=True))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(value[key]) for key in sorted(value, key=str) if value[key] is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list | tuple) else value


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:60] or "source"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
