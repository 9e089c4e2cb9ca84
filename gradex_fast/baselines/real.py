"""f(S) itself in place of f̂(S): a model trained for every subset that a selection asks for, kept on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradex_fast import kernels
from gradex_fast.baselines.rival import require
from gradex_fast.costs import Cost
from gradex_fast.errors import GradexError
from gradex_fast.evaluate import evaluate
from gradex_fast.files import checksum, file_checksum, read_json, write_json
from gradex_fast.model import load_model
from gradex_fast.moves import EveryMove
from gradex_fast.preflight import check_parameters
from gradex_fast.progress import Stage
from gradex_fast.sections import TrainRecipe
from gradex_fast.state import Run
from gradex_fast.train import train
from gradex_fast.types import Estimates, Example
from gradex_fast.workspace import lasting

STARTS = ("pretrained", "meta")


class RealEstimator:
    """What selection asks of an estimator, by training: x_S are the losses of the validation rows, so `rows` gives x.

    Args:
        start: train from the "pretrained" model, as one would without GRADEX, or from "meta", θ*, as the anchors do.
        train: how; None: as the recipe's final model from the pretrained one, as its anchors from θ*.
        bootstrap: resamplings of the validation rows for the intervals.

    Attributes:
        cost: of every subset that a search asked for, each once; noted ones cost what they did when they were trained.
        aside: of those that only `scores` of a finished search asked for.

    Raises:
        GradexError: unknown start, or the run has no θ* to start from.
    """

    def __init__(
        self, run: Run, *, start: str = "pretrained", train: TrainRecipe | None = None, bootstrap: int = 200
    ) -> None:
        if start not in STARTS:
            raise GradexError(f"start is {start!r}, not one of {', '.join(STARTS)}")
        require(run, ["meta"] if start == "meta" else [])
        count, validation = len(run.corpus.sources), len(run.corpus.validation.examples)
        anchors = run.recipe.estimate.anchor_train if start == "meta" else None
        self.always = (count,) if run.corpus.train.examples else ()
        self.groups, self.candidates = count + len(self.always), np.arange(count)
        self.cost, self.aside, self._searching = Cost(), Cost(), True
        self._run, self._recipe = run, train or anchors or run.recipe.train
        self._start = run.path / "meta" if start == "meta" else None
        self._known: dict[bytes, np.ndarray] = {}
        even = np.full(validation, 1 / validation)
        self.resampling = np.random.default_rng(run.recipe.seed).multinomial(validation, even, bootstrap) / validation
        self._identity = checksum(*_origin(run, self._start), self._recipe.key())

    def estimate(
        self, subsets: np.ndarray | Sequence[Sequence[int]], progress: Callable[[int], object] | None = None
    ) -> Estimates:
        """f of m subsets (bool [m, n], or m lists of groups), with a bootstrap interval over validation rows."""
        masks = kernels.subset_masks(subsets, self.groups)
        masks[:, list(self.always)] = True
        with self._run.reporter.stage("fine-tune subsets") as stage:
            for done, mask in enumerate(masks):
                self._losses(mask, stage)
                if progress:
                    progress(done + 1)
        x = np.stack([self._known[mask.tobytes()] for mask in masks])
        low, high = np.quantile(x @ self.resampling.T, (0.025, 0.975), axis=1)
        return Estimates(x.mean(1), low, high, x)

    def rows(self, x: np.ndarray) -> np.ndarray:
        """Loss of every validation row at each x: x."""
        return x

    def moves(self) -> EveryMove:
        return _Moves(self)

    @contextmanager
    def unsearched(self) -> Iterator[None]:
        """While open, trainings are for the scores of a finished search, and none of its cost."""
        self._searching = False
        try:
            yield
        finally:
            self._searching = True

    def _losses(self, mask: np.ndarray, stage: Stage) -> None:
        """Once for every subset: from memory, from disk, or by training."""
        if mask.tobytes() in self._known:
            return
        run = self._run
        examples = run.examples(np.flatnonzero(mask[: len(run.corpus.sources)]))
        key = checksum(self._identity, *(example.digest for example in examples))
        place = run.path / "rivals" / "subsets" / f"{key}.json"
        note = read_json(place)
        if note is None:
            note = self._trained(examples, key, stage)
            write_json(place, note)
        self._known[mask.tobytes()] = np.array(note["loss"])
        spent = run.passes.training(examples, self._recipe) + run.passes.forward(run.corpus.validation.examples)
        spent = spent.taking(note["seconds"])
        if self._searching:
            self.cost += spent
        else:
            self.aside += spent

    def _trained(self, examples: Sequence[Example], key: str, stage: Stage) -> dict[str, Any]:
        run, begin = self._run, time.monotonic()
        model = load_model(run.recipe.model, run.recipe.seed, run.device, trained=self._start)
        if examples:
            check_parameters(run.recipe, model)
            folder = run.path / "checkpoints" / f"subset-{key[:16]}"
            train(model, examples, self._recipe, pad_id=run.pad_id, folder=folder, seed=run.recipe.seed, stage=stage)
        options = {"pad_id": run.pad_id, "batch_tokens": run.recipe.sketch.batch_tokens}
        loss = evaluate(model, run.corpus.validation.examples, **options).loss
        if not np.isfinite(loss).all():
            raise GradexError("the validation loss after training on a subset is not finite; lower train.learning_rate")
        return {"rows": len(examples), "seconds": time.monotonic() - begin, "loss": loss.tolist()}


class _Moves(EveryMove):
    def solve(self, mask: np.ndarray, moves: np.ndarray) -> np.ndarray:
        with self._estimator.unsearched():
            return super().solve(mask, moves)


def _origin(run: Run, start: Any) -> list[str]:
    """What a training starts from, what it is measured on, and all else that decides its result."""
    weights = [file_checksum(path) for path in sorted(start.glob("*.safetensors"))] if start else []
    measured = [example.digest for example in run.corpus.validation.examples]
    fields = [
        f"{name}={value}" for name, value in lasting(run.identity).items() if name == "seed" or name.startswith("model")
    ]
    return [*fields, *weights, *measured]
