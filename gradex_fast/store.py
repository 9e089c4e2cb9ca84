"""Sketches on disk: shards that many processes may write, and one matrix of them to map. Knows no models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from gradex_fast.claims import claimed
from gradex_fast.errors import GradexError
from gradex_fast.files import checksum, read_json, write_atomically, write_json
from gradex_fast.matrix import Matrix
from gradex_fast.types import Sketches
from gradex_fast.workspace import lasting, require_same

_ARRAYS = ("g", "h", "loss")
_NOTE = "gradex_fast"


class SketchStore:
    """A folder of shards. A shard is `shard_rows` consecutive rows of one split (train, validation).

    A shard says itself of what it is, which rows it holds and what they add up to, so that any number of processes may
    write, each its own. What was verified once is taken as whole until its size or time changes.

    Args:
        identity: what the sketches depend on (model, data, seed, dimension ...), JSON values by name.

    Raises:
        GradexError: the folder holds sketches of another identity; the message names the field.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], shard_rows: int = 1024) -> None:
        self.folder, self.shard_rows = folder, shard_rows
        path, whole = folder / "manifest.json", {**identity, "shard_rows": shard_rows}
        found = read_json(path)
        require_same((found or {"identity": whole})["identity"], whole, path)
        if found is None:
            write_json(path, {"identity": whole})
        self._identity = checksum(json.dumps(lasting(whole), sort_keys=True))

    def shards(self, rows: int) -> list[range]:
        """The row ranges that `rows` rows are kept in."""
        return [range(start, min(start + self.shard_rows, rows)) for start in range(0, rows, self.shard_rows)]

    def missing(self, split: str, rows: int) -> list[range]:
        """Row ranges of the shards that are not there whole; a shard with a wrong checksum counts as missing."""
        matrix = Matrix(self.folder, split)
        return [found for found in self.shards(rows) if not self._whole(split, found, matrix)]

    def whole(self, split: str, rows: range) -> bool:
        """Whether one shard is there whole."""
        return self._whole(split, rows, Matrix(self.folder, split))

    def write(self, split: str, rows: range, sketches: Sketches, digests: Sequence[str]) -> None:
        """Keep one shard. `digests` are the rows' content digests (16 hex digits each).

        Raises:
            GradexError: it cannot be written; shards written before are kept.
        """
        ids = np.array([int(digest, 16) for digest in digests], np.uint64)
        arrays = {"g": sketches.g, "h": sketches.margin, "loss": sketches.loss, "ids": ids}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        note = {**self._head(rows), "checksum": _sum_of(arrays)}
        write_atomically(self.path(split, rows), save(arrays, {_NOTE: json.dumps(note)}))

    def read(self, split: str, rows: int) -> Sketches:
        """All rows of a split, in order; g is mapped from one file, which is made of the shards when it is first read.

        Raises:
            GradexError: a shard is missing or damaged; running the sketch stage again mends it.
        """
        with claimed(self.folder, f"{split}.matrix", wait=True):
            matrix, shards = Matrix(self.folder, split), self.shards(rows)
            if gaps := [found for found in shards if not self._whole(split, found, matrix)]:
                names = ", ".join(self.path(split, gap).name for gap in gaps[:3])
                raise GradexError(f"{self.folder}: {len(gaps)} shards are missing or damaged ({names}); sketch again")
            paths = [self.path(split, found) for found in shards]
            if not matrix.holds(paths):
                matrix.write(paths, rows, (_arrays(path) for path in paths))
            return matrix.read()

    def path(self, split: str, rows: range) -> Path:
        """The file of one shard."""
        return self.folder / f"{split}-{rows.start // self.shard_rows:06d}.safetensors"

    def _head(self, rows: range) -> dict[str, Any]:
        return {"identity": self._identity, "rows": [rows.start, rows.stop]}

    def _whole(self, split: str, rows: range, matrix: Matrix) -> bool:
        path = self.path(split, rows)
        note = _note(path)
        if note is None or not self._head(rows).items() <= note.items():
            return False
        return matrix.knows(path) or _sum_of(load_file(path)) == note["checksum"]


def _arrays(path: Path) -> Sketches:
    found = load_file(path)
    return Sketches(*(found[name] for name in _ARRAYS))


def _sum_of(arrays: Mapping[str, np.ndarray]) -> str:
    return checksum(*(part for name in sorted(arrays) for part in (name, _bytes(arrays[name]))))


def _bytes(array: np.ndarray) -> memoryview | bytes:
    return array.data if array.size else b""


def _note(path: Path) -> dict[str, Any] | None:
    """What a shard says of itself; None where there is none, or it was cut short."""
    try:
        with safe_open(path, "numpy") as file:
            return json.loads((file.metadata() or {}).get(_NOTE, "null"))
    except (OSError, SafetensorError, ValueError):
        return None
