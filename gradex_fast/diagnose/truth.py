"""Estimate against truth: subsets fine-tuned for real from θ*, at random and along the forward path (Table 3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradex_fast import metrics
from gradex_fast.diagnose.part import Part, Row
from gradex_fast.finetuning import data_checksum, fine_tune
from gradex_fast.sections import TrainRecipe
from gradex_fast.select import forward_selection, random_subsets
from gradex_fast.state import Run


@dataclass(frozen=True)
class Truth:
    """The subsets of a diagnosis. The random ones are drawn as the anchors are, which are the first of them.

    Attributes:
        subsets: bool [m, n + always], no two random ones equal; those of the path come last.
        names: under which the run notes their fine-tunings. kinds: "random" or "path".
    """

    run: Run
    subsets: np.ndarray
    names: tuple[str, ...]
    kinds: np.ndarray

    @cached_property
    def loss(self) -> np.ndarray:
        """f(S) [m], nats. Fine-tunings that the run has noted are not made again."""
        return np.array([_true_loss(self.run, *each) for each in zip(self.names, self.subsets, strict=True)])

    @property
    def random(self) -> np.ndarray:
        """bool [m]"""
        return self.kinds == "random"

    def missing(self) -> list[str]:
        """Names of the fine-tunings that are still to be made."""
        pairs = zip(self.names, self.subsets, strict=True)
        return [name for name, subset in pairs if not _noted(self.run, name, subset)]


def truth_of(run: Run) -> Truth:
    """The subsets that the recipe asks for; nothing is trained yet."""
    asked = run.recipe.diagnose
    drawn = random_subsets(run.estimator, asked.subsets, run.recipe.estimate.anchor_fraction, run.recipe.seed + 1)
    fresh = np.sort(np.unique(drawn, axis=0, return_index=True)[1])
    path = forward_path(run, asked.path)
    names = [f"anchor {index + 1}" for index in fresh] + [f"path {_key(subset)}" for subset in path]
    kinds = np.array(["random"] * len(fresh) + ["path"] * len(path))
    return Truth(run, np.concatenate([drawn[fresh], path]), tuple(names), kinds)


def forward_path(run: Run, steps: int) -> np.ndarray:
    """The subsets of forward selection's first steps, improving or not: bool [≤ steps, n + always]."""
    steps = min(steps, len(run.corpus.sources))
    path = forward_selection(run.estimator, keep=steps).path if steps else ()
    masks = np.zeros((len(path), run.estimator.groups), bool)
    masks[:, list(run.estimator.always)] = True
    for index, step in enumerate(path):
        masks[index:, step["source"]] = True
    return masks


def compare(truth: Truth) -> Part:
    """f̂ against f, subset by subset and by kind.

    A random subset is calibrated by the line through the other random ones, one of the path by the line through all
    random ones; the constant predictor is the mean of the same.
    """
    run, loss, random = truth.run, truth.loss, truth.random
    estimates = run.estimator.at_ridge(run.estimator.ridge).estimate(truth.subsets).loss
    calibrated, constant = np.empty(len(loss)), np.full(len(loss), loss[random].mean())
    calibrated[random] = _left_out(estimates[random], loss[random])
    intercept, slope = metrics.line(estimates[random], loss[random])
    calibrated[~random] = intercept + slope * estimates[~random]
    columns = truth.names, truth.kinds, truth.subsets, estimates, calibrated, loss
    rows = [_row(run, *each) for each in zip(*columns, strict=True)]
    kinds = [kind for kind in ("random", "path") if (truth.kinds == kind).any()]
    which = {kind: truth.kinds == kind for kind in kinds}
    return Part(rows, [_figures(k, estimates[w], calibrated[w], constant[w], loss[w]) for k, w in which.items()])


def agreement(estimates: np.ndarray, truth: Truth) -> Row:
    """`metrics.agreement` over the random subsets; NaN where there are fewer than three."""
    estimate, loss = estimates[truth.random], truth.loss[truth.random]
    if len(loss) >= 3:
        return metrics.agreement(estimate, loss)
    names = ("spearman", "pearson", "relative_error", "calibrated_error", "constant_error")
    return {**dict.fromkeys(names, float("nan")), "relative_error": metrics.relative_error(estimate, loss)}


def chosen(run: Run, subset: np.ndarray) -> np.ndarray:
    """The sources of a subset."""
    return np.flatnonzero(subset[: len(run.corpus.sources)])


def recipe_of(run: Run) -> TrainRecipe:
    """How θ* is fine-tuned on a subset."""
    return run.recipe.estimate.anchor_train or run.recipe.train


def _true_loss(run: Run, name: str, subset: np.ndarray) -> float:
    rows = run.examples(chosen(run, subset))
    return fine_tune(run, name, rows, recipe_of(run), run.path / "meta")["validation_loss"]


def _noted(run: Run, name: str, subset: np.ndarray) -> bool:
    note = run.workspace.done(name)
    return note is not None and note["data"] == data_checksum(run.examples(chosen(run, subset)), recipe_of(run))


def _key(subset: np.ndarray) -> str:
    return "-".join(map(str, np.flatnonzero(subset)))


def _left_out(estimate: np.ndarray, loss: np.ndarray) -> np.ndarray:
    return metrics.leave_one_out(estimate, loss) if len(loss) > 1 else np.full(len(loss), np.nan)


def _row(run: Run, name: str, kind: str, subset: np.ndarray, *figures: float) -> Row:
    members = [run.corpus.names[index] for index in chosen(run, subset)]
    named = dict(zip(("estimate", "calibrated", "truth"), map(float, figures), strict=True))
    return {"kind": str(kind), "name": name, "size": len(members), **named, "sources": members}


def _figures(kind: str, estimate: np.ndarray, calibrated: np.ndarray, constant: np.ndarray, loss: np.ndarray) -> Row:
    known = len(loss) >= 3  # two points always lie on a line
    return {
        "subsets": kind,
        "count": len(loss),
        "spearman": metrics.spearman(estimate, loss) if known else float("nan"),
        "pearson": metrics.pearson(estimate, loss) if known else float("nan"),
        "relative_error": metrics.relative_error(estimate, loss),
        "calibrated_error": metrics.relative_error(calibrated, loss),
        "constant_error": metrics.relative_error(constant, loss),
    }
