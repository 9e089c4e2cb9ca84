"""A safetensors file: g, margin and loss, in a folder with its rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from gradex_fast.errors import GradexError
from gradex_fast.interchange import rows
from gradex_fast.interchange.arrays import as_sketches
from gradex_fast.interchange.foreign import ForeignSketches, unknown
from gradex_fast.types import Sketches

NAME = "sketches.safetensors"
_FIGURES = {"margin": ("margin", "h"), "loss": ("loss",)}
"""Names that tensors of them have; a shard of a run says h."""


def looks(path: Path) -> bool:
    """A folder with ``sketches.safetensors``, or any .safetensors file."""
    return (path / NAME).is_file() if path.is_dir() else path.suffix == ".safetensors"


def read(path: Path) -> ForeignSketches:
    """g is the tensor of that name, or the only matrix. A file by itself has no ids."""
    file = path / NAME if path.is_dir() else path
    try:
        with safe_open(file, "pt") as opened:  # torch's view maps the file, NumPy's copies it
            g = as_sketches(_array(opened.get_tensor(_matrix(opened, file))), file)
            found = {name: _figures(opened, names, len(g), file) for name, names in _FIGURES.items()}
    except (OSError, SafetensorError) as error:
        raise GradexError(
            f"{file} is no whole safetensors file ({str(error).splitlines()[0]}); write it again"
        ) from error
    g.flags.writeable = False
    beside = rows.read(path / rows.NAME, len(g))
    return ForeignSketches(g, **found, ids=beside["ids"])


def write(folder: Path, sketches: Sketches, ids: Sequence[str] | None) -> None:
    arrays = {"g": (sketches.g, np.float32), "margin": (sketches.margin, None), "loss": (sketches.loss, None)}
    save_file({name: np.ascontiguousarray(array, kind) for name, (array, kind) in arrays.items()}, folder / NAME)
    rows.write(folder / rows.NAME, sketches, ids)


def _matrix(opened, file: Path) -> str:
    shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    matrices = ["g"] if "g" in shapes else [name for name, shape in shapes.items() if len(shape) == 2]
    if len(matrices) != 1:
        raise GradexError(
            f"{file} has no tensor g, and {len(matrices)} matrices among its {len(shapes)} tensors; name one g"
        )
    return matrices[0]


def _figures(opened, names: Sequence[str], count: int, file: Path) -> np.ndarray:
    name = next((name for name in names if name in opened.keys()), None)  # noqa: SIM118
    if name is None:
        return unknown(count)
    found = _array(opened.get_tensor(name)).astype(np.float64)
    if found.shape != (count,):
        raise GradexError(f"{file}: {name} is {list(found.shape)} where the sketches have {count:,} rows")
    return found


def _array(tensor: torch.Tensor) -> np.ndarray:
    """NumPy knows no bfloat16, and no float of 8 bits."""
    foreign = tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64)
    return (tensor.float() if foreign else tensor).numpy()
