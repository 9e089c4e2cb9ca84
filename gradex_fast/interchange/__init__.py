"""Sketches in the forms of other tools: read where another one left them, written where another one finds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from gradex_fast.errors import GradexError
from gradex_fast.files import replacing, write_json
from gradex_fast.interchange import bergson, npy, tensors, trak
from gradex_fast.interchange.foreign import ForeignSketches
from gradex_fast.types import Sketches

__all__ = ["FORMS", "ForeignSketches", "form_of", "read_sketches", "require_free", "write_sketches"]

FORMS: dict[str, ModuleType] = {"bergson": bergson, "trak": trak, "npy": npy, "safetensors": tensors}

NOTE = "sketches.json"
"""A folder with it was written here, and may be written again."""


def read_sketches(path: str | Path, form: str | None = None) -> ForeignSketches:
    """Sketches, or any rows of projected gradients, as another tool or `write_sketches` left them.

    g is mapped, read-only, where the file holds float32; of float16, bfloat16 or float64 it is a copy in float32.

    Args:
        path: a folder, or a .npy or .safetensors file. form: one of `FORMS`; None: as it looks.

    Raises:
        GradexError: there is nothing of that form, or it is cut short, of another type, or of other sizes than it says.
    """
    path = Path(path)
    return FORMS[_known(form) if form else form_of(path)].read(path)


def write_sketches(
    path: str | Path,
    sketches: Sketches,
    form: str,
    *,
    ids: Sequence[str] | None = None,
    overwrite: bool = False,
    **options: Any,
) -> None:
    """Write a folder: the sketches in that form, and in ``rows.parquet`` each row's id, margin and loss.

    Args:
        sketches: of n rows. form: one of `FORMS`. ids: the rows' names [n].
        overwrite: replace what was written there before.
        options: ``modules`` (bergson: names of groups of columns and how many each has), ``targets`` and
            ``distribution`` (trak); each form's `write` says what they are.

    Raises:
        GradexError: the folder is taken, or the disk is full; what was there is kept.
        ValueError: sizes do not fit together.
    """
    path, lengths = Path(path), {len(each) for each in (sketches.g, sketches.margin, sketches.loss)}
    if sketches.g.ndim != 2 or len(lengths | ({len(ids)} if ids is not None else set())) > 1:
        raise ValueError(f"g must be [n, d], margin, loss and ids [n]; g is {list(sketches.g.shape)}")
    require_free(path, overwrite)
    with replacing(path, sketches.g.nbytes) as temporary:
        FORMS[_known(form)].write(temporary, sketches, ids, **options)
        write_json(temporary / NOTE, {"form": form, "rows": len(sketches), "dim": sketches.g.shape[1]})


def form_of(path: Path) -> str:
    """The form that a folder or a file looks like.

    Raises:
        GradexError: none; or the folder is one of several, which the message names.
    """
    if not path.exists():
        raise GradexError(f"{path}: there is no such file or folder")
    for name, form in FORMS.items():
        if form.looks(path):
            return name
    if shards := sorted(part.parent.name for part in path.glob("*/info.json")):
        raise GradexError(
            f"{path} holds {len(shards)} folders of gradients; read each alone, such as {path / shards[0]}"
        )
    raise GradexError(
        f"{path} is none of what sketches are read from: a bergson or TRAK folder, a .npy or a .safetensors file; "
        "pickles (.pt, .pth, .pkl) are never read, save their array as .npy"
    )


def require_free(path: Path, overwrite: bool) -> None:
    """Raises GradexError where a folder may not be written."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not (path / NOTE).is_file():
        raise GradexError(f"{path} is there and holds no sketches that were written here; choose another folder")
    if not overwrite:
        raise GradexError(f"{path} holds sketches; replace them with --overwrite (overwrite=True), or choose another")


def _known(form: str) -> str:
    if form not in FORMS:
        raise ValueError(f"form must be one of {tuple(FORMS)}, got {form!r}")
    return form
