"""A local file as rows: JSONL, JSON, CSV and Parquet, the text ones also under gzip or zstandard.

Not `load_dataset("json" | "csv")`: those infer types. A column of dates comes back as datetimes,
``07`` as 7 and ``NA`` as null; a column that is null throughout the first 10 MB refuses text
after them, blank lines shift row numbers, and each file leaves something in the user's cache.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gradex_fast.data_sections import FILE_ENDING
from gradex_fast.errors import GradexError

_BLOCK = 1 << 20


class Row(NamedTuple):
    """One row and where a person finds it, such as ``mix.jsonl line 3`` (1-based)."""

    place: str
    values: dict[str, Any]


def rows_of(path: Path, name: str) -> Iterator[Row]:
    """Rows of the file at `path`, which errors call `name`. Lazy; never cached.

    Raises:
        GradexError: a line is not JSON, not an object, or not as wide as the CSV's header.
        Exception: whatever the format's own library says of an unreadable file.
    """
    text, _, _ = (part and part.lower() for part in FILE_ENDING.search(path.name).groups())
    if text is None:
        return _parquet(path, name)
    parse = {"jsonl": _jsonl, "json": _json, "csv": _csv}[text]
    return parse(codecs.iterdecode(_blocks(path), "utf-8-sig"), name)


def _blocks(path: Path) -> Iterator[bytes]:
    open_file = gzip.open if path.suffix.lower() == ".gz" else open
    with open_file(path, "rb") as file:
        blocks = iter(lambda: file.read(_BLOCK), b"")
        yield from _unzstd(blocks) if path.suffix.lower() == ".zst" else blocks


def _unzstd(blocks: Iterable[bytes]) -> Iterator[bytes]:
    # zstandard's own file object ends a cut file in silence, and rows would be missing.
    import zstandard

    frame = None
    for block in blocks:
        while block:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(block)
            block = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("the compressed file is cut short")


def _lines(texts: Iterable[str]) -> Iterator[str]:
    rest = ""
    for text in texts:
        *whole, rest = (rest + text).split("\n")
        yield from (line + "\n" for line in whole)
    if rest:
        yield rest


def _jsonl(texts: Iterable[str], name: str) -> Iterator[Row]:
    for number, line in enumerate(_lines(texts), 1):
        if not line.isspace():
            place = f"{name} line {number}"
            try:
                yield Row(place, _object(json.loads(line), place))
            except json.JSONDecodeError as error:
                raise GradexError(f"{place}, character {error.colno}: {error.msg}") from error


def _json(texts: Iterable[str], name: str) -> Iterator[Row]:
    text = "".join(texts)
    array = text.lstrip().startswith("[")
    yield from _numbered(json.loads(text), name) if array else _jsonl(io.StringIO(text), name)


def _csv(texts: Iterable[str], name: str) -> Iterator[Row]:
    reader = csv.reader(_lines(texts), strict=True)  # strict: an unclosed quote is no long field
    header, line = None, 1
    try:
        for fields in reader:
            place, line = f"{name} line {line}", reader.line_num + 1
            if header is None:
                header = fields
            elif fields:
                yield Row(place, _record(header, fields, place))
    except csv.Error as error:
        raise GradexError(f"{name} line {line}: {error}") from error


def _record(header: list[str], fields: list[str], place: str) -> dict[str, str]:
    if len(fields) != len(header):
        raise GradexError(f"{place}: {len(fields)} fields under a header of {len(header)}")
    return dict(zip(header, fields, strict=True))


def _parquet(path: Path, name: str) -> Iterator[Row]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        batches = (batch.to_pylist() for batch in file.iter_batches())
        yield from _numbered((row for batch in batches for row in batch), name)


def _numbered(values: Iterable[Any], name: str) -> Iterator[Row]:
    for number, value in enumerate(values, 1):
        yield Row(f"{name} row {number}", _object(value, f"{name} row {number}"))


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise GradexError(f"{place}: a row must be an object of columns, not {json.dumps(value)[:40]}")
    return value
