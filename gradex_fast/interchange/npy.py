"""A NumPy file: the matrix alone, float32 [n, d], in a folder with its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradex_fast.interchange import rows
from gradex_fast.interchange.arrays import NPY, as_sketches, map_npy, parts_of, write_npy
from gradex_fast.interchange.foreign import ForeignSketches
from gradex_fast.types import Sketches

NAME = "sketches.npy"


def looks(path: Path) -> bool:
    """A folder with ``sketches.npy``, or any .npy file, whatever its name."""
    if path.is_dir():
        return (path / NAME).is_file()
    with open(path, "rb") as file:
        return file.read(len(NPY)) == NPY


def read(path: Path) -> ForeignSketches:
    """A file by itself has no margins, losses and ids."""
    file = path / NAME if path.is_dir() else path
    g = as_sketches(map_npy(file), file)
    return ForeignSketches(g, **rows.read(path / rows.NAME, len(g)))


def write(folder: Path, sketches: Sketches, ids: Sequence[str] | None) -> None:
    write_npy(folder / NAME, parts_of(sketches.g), sketches.g.shape)
    rows.write(folder / rows.NAME, sketches, ids)
