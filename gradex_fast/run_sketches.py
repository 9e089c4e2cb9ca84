"""The sketches of a run's rows in the form of another tool, with each row's id, margin and loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradex_fast.errors import GradexError
from gradex_fast.export.mixture import opened, read_corpus
from gradex_fast.files import read_json, replacing, write_json
from gradex_fast.interchange import FORMS, NOTE, require_free
from gradex_fast.model import load_tokenizer
from gradex_fast.recipe import Recipe
from gradex_fast.sketching import store_of
from gradex_fast.types import Corpus, Sketches
from gradex_fast.workspace import completed

Named = tuple[Sketches, list[str]]
"""Sketches, and the id of each row."""


def export_sketches(
    run: Path, to: str, out: Path | None = None, overrides: Sequence[str] = (), overwrite: bool = False
) -> dict[str, Any]:
    """Write the sketches of the training rows, those of all sources, then the target's own, and of the validation rows.

    A folder for each of the two; for TRAK one store, in which ``validation`` is an experiment.

    Args:
        run: the run's folder, or its recipe. to: one of `interchange.FORMS`.
        out: where to; None: ``exports/sketches-FORM`` in the run's folder.
        overwrite: replace what was written there before.

    Returns:
        What ``sketches.json`` says.

    Raises:
        GradexError: the run has no whole sketches, or its data changed.
    """
    folder, recipe = opened(run, overrides)
    out = out or folder / "exports" / f"sketches-{to}"
    require_free(out, overwrite)
    splits = _read(folder, recipe, run)
    size = sum(sketches.g.nbytes for sketches, _ in splits.values())
    with replacing(out, size) as temporary:
        _write(temporary, to, splits, recipe.sketch.distribution)
        made = {
            "form": to,
            "rows": {split: len(sketches) for split, (sketches, _) in splits.items()},
            "not_finite": {split: int((~sketches.finite).sum()) for split, (sketches, _) in splits.items()},
            "seed": recipe.seed,
            **{name: getattr(recipe.sketch, name) for name in ("dim", "distribution", "margin", "parameters")},
        }
        write_json(temporary / NOTE, made)
    return {"folder": str(out), **made}


def _write(folder: Path, to: str, splits: dict[str, Named], distribution: str) -> None:
    if to == "trak":
        targets = {"validation": splits["validation"]}
        return FORMS[to].write(folder, *splits["train"], targets=targets, distribution=distribution)
    for split, named in splits.items():
        (folder / split).mkdir()
        FORMS[to].write(folder / split, *named)


def _read(folder: Path, recipe: Recipe, place: Path) -> dict[str, Named]:
    manifest = read_json(folder / "manifest.json")
    if not manifest or not (folder / "sketches" / "manifest.json").is_file():
        raise GradexError(f"{folder} has no sketches yet; make them with: gradex-fast sketch {place}")
    corpus = read_corpus(folder, recipe, load_tokenizer(recipe.model), manifest)
    store = store_of(folder, completed(manifest["identity"]), recipe.sketch.shard_rows)
    return {split: (store.read(split, len(ids)), ids) for split, ids in _ids(corpus).items()}


def _ids(corpus: Corpus) -> dict[str, list[str]]:
    parts = {"train": [*corpus.sources, corpus.train], "validation": [corpus.validation]}
    return {
        split: [example.id for source in sources for example in source.examples] for split, sources in parts.items()
    }
