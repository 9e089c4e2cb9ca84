"""What a diagnosis is about to do, before it does it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from gradex_fast.diagnose import ablations, curvature, rrss, variants
from gradex_fast.diagnose.directions import step_file
from gradex_fast.diagnose.truth import Truth


def announced(truth: Truth, parts: Collection[str]) -> str:
    """One line: fine-tunings, sketching passes, single-row passes; what is on disk is not counted."""
    work = [_fine_tunings(truth, parts), _passes(truth, parts), _rows(truth, parts)]
    return f"{' '.join(['diagnose', *parts])}: " + ("; ".join(filter(None, work)) or "everything is there")


def fine_tunings(truth: Truth, parts: Collection[str]) -> int:
    """How many are still to be made."""
    steps = truth.subsets[truth.random][: truth.run.recipe.diagnose.directions] if "rrss" in parts else ()
    missing = sum(not step_file(truth.run, subset).exists() for subset in steps)
    return missing + (len(truth.missing()) if set(parts) - {"rrss"} else 0)


def _fine_tunings(truth: Truth, parts: Collection[str]) -> str:
    count, notes = fine_tunings(truth, parts), [truth.run.workspace.done(name) for name in truth.names]
    seconds = [note["seconds"] for note in notes if note]
    about = f" (about {count * np.mean(seconds):.0f} s)" if seconds else ""
    return f"{count} fine-tunings from θ*{about}" if count else ""


def _passes(truth: Truth, parts: Collection[str]) -> str:
    run = truth.run
    rows = len(run.train) + len(run.validation)
    missing = {folder: dim for part, each in folders(truth).items() if part in parts for folder, dim in each.items()}
    dims = [dim for folder, dim in missing.items() if not (run.path / folder / "manifest.json").exists()]
    found = [f"{len(dims)} sketching passes of {rows:,} rows (d = {', '.join(map(str, dims))})"] if dims else []
    if "curvature" in parts and not (run.path / curvature.FOLDER / "manifest.json").exists():
        examples = [*run.examples(), *run.corpus.validation.examples]
        found.append(f"one of {sum(example.supervised for example in examples):,} tokens")
    return ", ".join(found)


def folders(truth: Truth) -> dict[str, dict[str, int]]:
    """Folders of sketches by the part that needs them, with their d."""
    run, own = truth.run, truth.run.recipe.sketch
    nested = own.distribution in variants.NESTED
    dims = (variants.widest(run),) if nested else run.recipe.diagnose.dims
    return {
        "dim": {variants.folder(run, dim, own.margin): dim for dim in dims},
        "ridge": {variants.folder(run, own.dim, margin): own.dim for margin in ablations.margins(truth)},
    }


def _rows(truth: Truth, parts: Collection[str]) -> str:
    run, asked = truth.run, truth.run.recipe.diagnose
    rows = min(asked.rows, len(run.train) + len(run.validation))
    return f"{rows} backward passes of one row, {rrss.passes(run)} evaluations of these" if "rrss" in parts else ""
