"""`gradex-fast diagnose`: how good a run's estimates are, and what they lose where.

On a run that has come through meta, sketch and estimate (they are carried out if they have not been): the first-order
expansion against distance, f̂ against f, and f̂'s error against d, ridge and margin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradex_fast import pipeline
from gradex_fast.diagnose import ablations, curvature, figures, output, rrss, truth
from gradex_fast.diagnose.account import account
from gradex_fast.diagnose.costs import announced
from gradex_fast.diagnose.part import Part
from gradex_fast.errors import GradexError
from gradex_fast.files import checksum
from gradex_fast.progress import Reporter
from gradex_fast.recipe import Recipe
from gradex_fast.state import Run

PARTS = {
    "rrss": rrss.follow,
    "truth": truth.compare,
    "dim": ablations.by_dimension,
    "ridge": ablations.by_ridge,
    "curvature": curvature.compare,
}
DEFAULT = ("rrss", "truth", "dim", "ridge")
"""The others sketch every token, or are prototypes."""


@dataclass(frozen=True)
class Diagnosis:
    """Attributes: folder: RUN/diagnosis, with NAME.csv, NAME.png, diagnosis.json and cost.csv. parts: those asked for.
    cost: of the run and of these parts, whenever they were carried out."""

    folder: Path
    parts: dict[str, Part]
    cost: Part


def diagnose(
    recipe: Recipe, parts: Sequence[str] = DEFAULT, *, reporter: Reporter | None = None, overwrite: bool = False
) -> Diagnosis:
    """Measure some of `PARTS`; what was measured before, fine-tuned or sketched is not done again.

    Args:
        overwrite: throw the run away first, as `pipeline.run` does.

    Raises:
        GradexError: an unknown part; or as `pipeline.run`.
    """
    if unknown := [name for name in parts if name not in PARTS]:
        raise GradexError(f"there is no part {unknown[0]!r} of a diagnosis; there are {', '.join(PARTS)}")
    run = pipeline.run(recipe, until="estimate", reporter=reporter, overwrite=overwrite)
    folder, settings = run.path / "diagnosis", _settings(run)
    known = output.kept_parts(folder, settings)
    with run.reporter:
        subsets = truth.truth_of(run)
        run.reporter.say(announced(subsets, [name for name in parts if name not in known]))
        for name in parts:
            if name not in known:
                known[name] = output.finite(PARTS[name](subsets))
                output.write(folder, settings, known)
        asked = {name: known[name] for name in PARTS if name in parts}
        figures.write(folder, asked)
    cost = account(subsets, parts)
    output.write_csv(folder, "cost", cost)
    return Diagnosis(folder, asked, cost)


def _settings(run: Run) -> str:
    """Changes with whatever a part depends on."""
    recipe = run.recipe
    identity = sorted(f"{key}={value}" for key, value in run.identity.items())
    silent = {"anchor_train": recipe.estimate.anchor_train.silent} if recipe.estimate.anchor_train else set()
    return checksum(*identity, recipe.estimate.model_dump_json(exclude=silent), recipe.diagnose.model_dump_json())
