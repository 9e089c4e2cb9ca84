"""Sketches on disk: shards and one manifest; resumable, checksummed. Knows no models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from gradex_fast.errors import GradexError
from gradex_fast.files import file_checksum, read_json, write_atomically, write_json
from gradex_fast.types import Sketches
from gradex_fast.workspace import require_same


class SketchStore:
    """A folder of shards. A shard is `shard_rows` consecutive rows of one split (train, validation).

    Args:
        identity: what the sketches depend on (model, data, seed, dimension ...), JSON values by name.

    Raises:
        GradexError: the folder holds sketches of another identity; the message names the field.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], shard_rows: int = 1024) -> None:
        self.folder, self.shard_rows = folder, shard_rows
        self._path = folder / "manifest.json"
        found = read_json(self._path)
        self._manifest = found or {"identity": {**identity, "shard_rows": shard_rows}, "shards": {}}
        require_same(self._manifest["identity"], {**identity, "shard_rows": shard_rows}, self._path)
        if found is None:
            write_json(self._path, self._manifest)

    def missing(self, split: str, rows: int) -> list[range]:
        """Row ranges of the shards that are not there whole; a shard with a wrong checksum counts as missing."""
        starts = range(0, rows, self.shard_rows)
        ranges = [range(start, min(start + self.shard_rows, rows)) for start in starts]
        return [found for found in ranges if not self._whole(split, found)]

    def write(self, split: str, rows: range, sketches: Sketches, digests: Sequence[str]) -> None:
        """Keep one shard. `digests` are the rows' content digests (16 hex digits each).

        Raises:
            GradexError: it cannot be written; shards written before are kept.
        """
        name = self._name(split, rows)
        ids = np.array([int(digest, 16) for digest in digests], np.uint64)
        arrays = {"g": sketches.g, "h": sketches.margin, "loss": sketches.loss, "ids": ids}
        write_atomically(self.folder / name, save(arrays))
        self._manifest["shards"][name] = {
            "rows": [rows.start, rows.stop],
            "checksum": file_checksum(self.folder / name),
        }
        write_json(self._path, self._manifest)

    def read(self, split: str, rows: int) -> Sketches:
        """All rows of a split, in order.

        Raises:
            GradexError: a shard is missing or damaged; running the sketch stage again mends it.
        """
        if gaps := self.missing(split, rows):
            names = ", ".join(self._name(split, gap) for gap in gaps[:3])
            raise GradexError(f"{self.folder}: {len(gaps)} shards are missing or damaged ({names}); sketch again")
        starts = range(0, rows, self.shard_rows)
        parts = [load_file(self.folder / self._name(split, range(start, rows))) for start in starts]
        return Sketches(*(np.concatenate([part[key] for part in parts]) for key in ("g", "h", "loss")))

    def _name(self, split: str, rows: range) -> str:
        return f"{split}-{rows.start // self.shard_rows:06d}.safetensors"

    def _whole(self, split: str, rows: range) -> bool:
        name = self._name(split, rows)
        entry, path = self._manifest["shards"].get(name), self.folder / name
        if entry is None or entry["rows"] != [rows.start, rows.stop] or not path.exists():
            return False
        return file_checksum(path) == entry["checksum"]
