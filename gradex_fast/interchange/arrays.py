"""Matrices on disk: mapped and never unpickled, and every fault of a file a line that names it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from gradex_fast.errors import GradexError
from gradex_fast.types import row_ranges

NPY = b"\x93NUMPY"
"""What every .npy file begins with."""

_BFLOAT16 = np.dtype("V2")
"""What NumPy takes it for: two bytes of which it knows nothing."""


def map_npy(path: Path, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """A .npy file's array, read-only. `shape`: what it must have.

    Raises:
        GradexError: no such file, cut short, pickled objects, or another shape.
    """
    try:
        found, dtype, wanted = _header(path)
        if dtype.hasobject:
            raise GradexError(f"{path} holds pickled objects, which are never read; save it as numbers")
        if (size := path.stat().st_size) != wanted:
            raise ValueError(f"it has {size:,} bytes where {dtype} {list(found)} is {wanted:,}")
        array = np.lib.format.open_memmap(path, mode="r") if 0 not in found else np.empty(found, dtype)
    except (OSError, ValueError, EOFError) as error:
        raise GradexError(f"{path} is no whole .npy file: {_line(error)}; write it again") from error
    if shape is not None and array.shape != shape:
        raise GradexError(f"{path} is {list(array.shape)} where {list(shape)} is expected; it is of another store")
    return array


def map_raw(path: Path, dtype: str, shape: tuple[int, int]) -> np.ndarray:
    """A file of nothing but the numbers of a matrix, row by row, read-only.

    Raises:
        GradexError: no such file, an unknown type, or a file of another size than the matrix.
    """
    kind = _type_of(dtype, path)
    size, wanted = (path.stat().st_size if path.is_file() else 0), kind.itemsize * shape[0] * shape[1]
    if size != wanted:
        raise GradexError(
            f"{path} has {size:,} bytes where {shape[0]:,} rows of {shape[1]:,} {dtype} are {wanted:,}; it was cut "
            "short, or is still being written"
        )
    return np.memmap(path, kind, "r", shape=shape) if size else np.empty(shape, kind)


def as_sketches(array: np.ndarray, path: Path) -> np.ndarray:
    """float32 [n, d]: the array itself where it is that.

    Raises:
        GradexError: it is no matrix, or not of floating point.
    """
    if array.ndim != 2:
        raise GradexError(f"{path} holds an array {list(array.shape)}; sketches are a matrix, a row for each sample")
    if array.dtype == _BFLOAT16:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)  # the upper half of a float32
    if array.dtype.kind != "f":
        raise GradexError(f"{path} holds {array.dtype}; sketches are float16, bfloat16, float32 or float64")
    return np.asarray(array, np.float32)


def write_npy(path: Path, parts: Iterable[np.ndarray], shape: tuple[int, ...]) -> None:
    """A float32 .npy file of the parts, one after the other; without any it is zeros that take no room."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        end = file.tell() + 4 * math.prod(shape)
        write_parts(file, parts)
        file.truncate(end)


def write_parts(file, parts: Iterable[np.ndarray]) -> None:
    """As float32, little-endian; on the disk when it returns."""
    for part in parts:
        file.write(np.ascontiguousarray(part, "<f4").data)
    file.flush()
    os.fsync(file.fileno())


def parts_of(g: np.ndarray) -> Iterable[np.ndarray]:
    """Its rows in pieces, so that a mapped matrix is not read into memory as a whole."""
    return (g[rows] for rows in row_ranges(len(g)))


def _header(path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type, and bytes of the whole file."""
    with open(path, "rb") as file:
        version = np.lib.format.read_magic(file)
        if version > (2, 0):  # the third is for names of fields alone
            raise ValueError("it is of several fields")
        shape, _, dtype = getattr(np.lib.format, f"read_array_header_{version[0]}_0")(file)
        return shape, dtype, file.tell() + dtype.itemsize * math.prod(shape)


def _type_of(dtype: str, path: Path) -> np.dtype:
    try:
        found = _BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    except TypeError:
        found = np.dtype("V")
    if found.kind != "f" and found != _BFLOAT16:
        raise GradexError(f"{path} holds {dtype}; sketches are float16, bfloat16, float32 or float64")
    return found


def _line(error: Exception) -> str:
    return str(error).split("\n")[0]
