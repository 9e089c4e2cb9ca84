"""bergson's gradient folder: ``gradients.bin``, rows of all modules' columns, and ``info.json``, which says how many.

What bergson puts there are gradients of its loss; what `write` puts there are those of the margin, ∇h = -∇ℓ / (1 - p).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gradex_fast.errors import GradexError
from gradex_fast.files import read_json, write_json
from gradex_fast.interchange import rows
from gradex_fast.interchange.arrays import as_sketches, map_npy, map_raw, parts_of, write_parts
from gradex_fast.interchange.foreign import ForeignSketches
from gradex_fast.types import Sketches

GRADIENTS, INFO, OFFSETS = "gradients.bin", "info.json", "offsets.npy"


def looks(path: Path) -> bool:
    info = read_json(path / INFO)
    return (path / GRADIENTS).is_file() or (isinstance(info, dict) and "grad_sizes" in info)


def read(folder: Path) -> ForeignSketches:
    """One row a sample; where the rows are tokens, those of a sample are added up. Columns: all modules', in order."""
    path, info = folder / INFO, read_json(folder / INFO)
    if not isinstance(info, dict):
        raise GradexError(f"{path} is missing or cut short: {GRADIENTS} alone does not say its sizes; write it again")
    try:
        sizes = {str(name): int(size) for name, size in info["grad_sizes"].items()}
        dtype, count = str(_dtype(info)), int(info["num_grads"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise GradexError(f"{path} lacks what bergson writes there: {error}; write it again") from error
    if count < 0 or min(sizes.values(), default=0) < 1:
        raise GradexError(f"{path}: {count} rows and modules of {list(sizes.values())} columns are no sizes")
    found = as_sketches(map_raw(folder / GRADIENTS, dtype, (count, sum(sizes.values()))), folder / GRADIENTS)
    if info.get("attribute_tokens"):
        found = _by_sample(found, map_npy(folder / OFFSETS), folder / OFFSETS)
    ends = np.cumsum([0, *sizes.values()]).tolist()
    modules = {name: slice(*ends) for name, ends in zip(sizes, pairwise(ends), strict=True)}
    return ForeignSketches(found, **rows.read(folder / rows.NAME, len(found)), modules=modules)


def write(
    folder: Path, sketches: Sketches, ids: Sequence[str] | None, *, modules: Mapping[str, int] | None = None
) -> None:
    """What bergson's `load_gradients`, `load_module_gradients` and `load_gradient_dataset` read.

    Args:
        modules: names of groups of columns, in order, and how many each has; None: one, ``sketch``, of all.
    """
    from datasets import Dataset

    count, dim = sketches.g.shape
    sizes = dict(modules or {"sketch": dim})
    if sum(sizes.values()) != dim:
        raise ValueError(f"modules have {sum(sizes.values())} columns together, the sketches {dim}")
    with open(folder / GRADIENTS, "wb") as file:
        write_parts(file, parts_of(sketches.g))
    layout = {"attribute_tokens": False, "num_items": count, "num_grads": count}
    write_json(folder / INFO, {**layout, "grad_sizes": sizes, "base_dtype": "float32"})
    Dataset.from_dict(rows.columns(sketches, ids)).save_to_disk(folder / "data.hf")
    rows.write(folder / rows.NAME, sketches, ids)


def _dtype(info: Mapping[str, Any]) -> str:
    """Before 2.5 the rows were one structured type, with a field for each module: ``(16,)<f4``."""
    if "base_dtype" in info:
        return info["base_dtype"]
    formats = {text.partition(")")[2] or text for text in info["dtype"]["formats"]}
    if len(formats) != 1:
        raise ValueError(f"modules of several types {sorted(formats)}")
    return formats.pop()


def _by_sample(found: np.ndarray, offsets: np.ndarray, path: Path) -> np.ndarray:
    """Sample i's rows are offsets[i] to offsets[i + 1]; its gradient is their sum."""
    counts = offsets.ndim == 1 and offsets.dtype.kind in "iu" and len(offsets) > 0
    if not counts or offsets[0] or offsets[-1] != len(found) or (offsets[1:] < offsets[:-1]).any():
        raise GradexError(f"{path} does not divide the {len(found):,} rows of {GRADIENTS}; it is of another store")
    summed = np.zeros((len(offsets) - 1, found.shape[1]), np.float32)
    for row, (start, stop) in enumerate(pairwise(offsets)):
        summed[row] = found[start:stop].sum(0, dtype=np.float32)
    return summed
