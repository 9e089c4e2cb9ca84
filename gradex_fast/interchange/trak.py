"""TRAK's store, as traker's `MmapSaver` lays it out: a folder for every checkpoint, gradients and 1 - p of its rows.

traker's gradients are divided by √p, these by √d: its scores are the same up to one factor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gradex_fast.errors import GradexError
from gradex_fast.files import read_json, write_json
from gradex_fast.interchange import rows
from gradex_fast.interchange.arrays import as_sketches, map_npy, parts_of, write_npy
from gradex_fast.interchange.foreign import ForeignSketches
from gradex_fast.types import Sketches

METADATA, GRADIENTS, MISS = "metadata.json", "grads.mmap", "out_to_loss.mmap"
_MATRIX = {"gaussian": "normal"}
"""traker's name of a distribution, where it differs."""


def looks(path: Path) -> bool:
    """traker's folder, or that of one checkpoint in it."""
    about = read_json(path / METADATA)
    return (path / GRADIENTS).is_file() or (isinstance(about, dict) and "JL dimension" in about)


def read(path: Path) -> ForeignSketches:
    """The training rows of a checkpoint: of the only one, where `path` is traker's whole folder.

    Without ``rows.parquet``, margin and loss are those of p = 1 - Q, Q being what traker keeps; its targets' gradients
    are .npy files, such as ``0/NAME_grads.mmap``.
    """
    folder = path if (path / GRADIENTS).is_file() else _checkpoint(path)
    g = map_npy(folder / GRADIENTS)
    _require_whole(folder, g)
    miss = map_npy(folder / MISS, (len(g), 1))[:, 0].astype(np.float64)
    with np.errstate(divide="ignore"):
        loss = -np.log1p(-miss)
        margin = -loss - np.log(miss)
    beside = rows.read(folder / rows.NAME, len(g))
    known = beside if (folder / rows.NAME).is_file() else {**beside, "margin": margin, "loss": loss}
    return ForeignSketches(as_sketches(g, folder / GRADIENTS), **known)


def write(
    folder: Path,
    sketches: Sketches,
    ids: Sequence[str] | None,
    *,
    targets: Mapping[str, tuple[Sketches, Sequence[str] | None]] | None = None,
    distribution: str = "gaussian",
) -> None:
    """Checkpoint 0, featurised, as `TRAKer(save_dir=folder, use_half_precision=False)` goes on from it.

    Rows that are not finite are zeros, in the sketch and in 1 - p: they take no part, and their scores are 0.

    Args:
        targets: sketches and ids of the rows to score, by the experiment's name: `finalize_features()` and
            `finalize_scores(name)` are all that is left to do.
        distribution: of P's entries, which traker compares with its own projector's.
    """
    (folder / "0").mkdir(), (folder / "scores").mkdir()
    shape, finite = sketches.g.shape, sketches.finite
    about = {"JL dimension": shape[1], "JL matrix type": _MATRIX.get(distribution, distribution)}
    write_json(folder / METADATA, {**about, "train set size": shape[0]})
    write_json(folder / "id_0.json", {"0": {"is_featurized": 1, "is_finalized": 0}})
    experiments = {name: _experiment(name, len(target)) for name, (target, _) in (targets or {}).items()}
    write_json(folder / "experiments.json", experiments)
    write_npy(folder / "0" / GRADIENTS, _zeroed(sketches.g, finite), shape)
    miss = np.where(finite, -np.expm1(-sketches.loss), 0.0)[:, None]
    write_npy(folder / "0" / MISS, [miss], miss.shape)
    write_npy(folder / "0" / "features.mmap", [], shape)
    np.save(folder / "0" / "_is_featurized.npy", np.ones((shape[0], 1), np.int32))
    (folder / "0" / "_is_featurized.npy").rename(folder / "0" / "_is_featurized.mmap")
    rows.write(folder / "0" / rows.NAME, sketches, ids)
    for name, (target, names) in (targets or {}).items():
        write_npy(folder / "0" / f"{name}_grads.mmap", _zeroed(target.g, target.finite), target.g.shape)
        write_npy(folder / "scores" / f"{name}.mmap", [], (shape[0], len(target)))
        rows.write(folder / "0" / f"{name}_{rows.NAME}", target, names)


def _experiment(name: str, count: int) -> dict[str, int | str]:
    return {"num_targets": count, "scores_path": f"scores/{name}.mmap", "scores_finalized": 0}


def _zeroed(g: np.ndarray, finite: np.ndarray) -> Iterable[np.ndarray]:
    return (np.where(kept[:, None], part, 0.0) for part, kept in zip(parts_of(g), parts_of(finite), strict=True))


def _checkpoint(path: Path) -> Path:
    known = sorted(
        (p.parent for p in path.glob(f"*/{GRADIENTS}") if p.parent.name.isdigit()), key=lambda p: int(p.name)
    )
    if not known:
        raise GradexError(f"{path} has no {GRADIENTS}: nothing was featurised, or del_grads=True took it away")
    if len(known) > 1:
        names = ", ".join(folder.name for folder in known)
        raise GradexError(f"{path} holds the checkpoints {names}; read one, such as {known[0]}")
    return known[0]


def _require_whole(folder: Path, g: np.ndarray) -> None:
    done = map_npy(folder / "_is_featurized.mmap").ravel()
    if len(done) != len(g) or not done.all():
        raise GradexError(f"{folder}: {int(done.sum()):,} of {len(g):,} rows are featurised; let traker finish them")
    about = read_json(folder.parent / METADATA)
    said = about and (about.get("train set size"), about.get("JL dimension"))
    if said and said != g.shape:
        raise GradexError(
            f"{folder / GRADIENTS} is {list(g.shape)}, {METADATA} says {list(said)}; it is of another store"
        )
