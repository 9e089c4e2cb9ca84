"""All shards of a split as one matrix on disk, which opens at once and takes no memory until it is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from gradex_fast.files import explained_if_full, read_json, temporary_name, write_json
from gradex_fast.types import Sketches

Stamp = list[int]
"""A file's size and the time of its last change, in nanoseconds."""


class Matrix:
    """``SPLIT.npy`` with g, float32 [n, d]; ``SPLIT.rows.npy`` with margins and losses, float64 [2, n]; and
    ``SPLIT.json`` with the stamps of these and of the verified shards that they were made of."""

    def __init__(self, folder: Path, split: str) -> None:
        self._g, self._rows, self._path = (folder / f"{split}.{ending}" for ending in ("npy", "rows.npy", "json"))
        self._stamps: dict[str, Stamp] = read_json(self._path) or {}

    def knows(self, path: Path) -> bool:
        """Whether the file is as it was when the matrix was made."""
        return self._stamps.get(path.name) == _stamp(path)

    def holds(self, shards: Sequence[Path]) -> bool:
        """Whether it was made of these shards, as they are, and of no other."""
        files = [*shards, self._g, self._rows]
        return len(self._stamps) == len(files) and all(map(self.knows, files))

    def write(self, paths: Sequence[Path], rows: int, parts: Iterable[Sketches]) -> None:
        """Put together the shards at `paths`, whose arrays `parts` yields; before, all of them were verified.

        Raises:
            GradexError: the disk is full.
        """
        stamps, (margin, loss), done = {path.name: _stamp(path) for path in paths}, np.empty((2, rows)), 0
        with _replaced(self._g) as temporary, open(temporary, "wb") as file:  # a full disk kills whoever writes a map
            for part in parts:
                if not done:
                    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, part.g.shape[1])}
                    np.lib.format.write_array_header_1_0(file, shape)
                here = slice(done, done := done + len(part))
                margin[here], loss[here] = part.margin, part.loss
                file.write(np.ascontiguousarray(part.g, "<f4").data)
            if not done:
                np.save(file, np.zeros((0, 0), np.float32))
        with _replaced(self._rows) as temporary:
            np.save(temporary, np.stack([margin, loss]))
        self._stamps = stamps | {path.name: _stamp(path) for path in (self._g, self._rows)}
        write_json(self._path, self._stamps)

    def read(self) -> Sketches:
        """g is a view of the file, read-only."""
        margin, loss = np.load(self._rows, allow_pickle=False)
        mapped = np.load(self._g, mmap_mode="r" if len(margin) else None, allow_pickle=False)
        return Sketches(np.asarray(mapped), margin, loss)


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """A temporary name, whose file takes the place of `path` when it was written to its end."""
    temporary = temporary_name(path).with_suffix(".npy")
    try:
        with explained_if_full(path.parent, 1 << 20):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
