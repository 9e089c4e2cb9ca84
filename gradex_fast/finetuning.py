"""One fine-tuning of a run: trained once, measured, noted in the run's directory."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gradex_fast.errors import GradexError
from gradex_fast.evaluate import evaluate
from gradex_fast.files import checksum, explained_if_full
from gradex_fast.model import load_model, load_tokenizer, save_model, trainable
from gradex_fast.preflight import check_parameters
from gradex_fast.recipe import TrainRecipe
from gradex_fast.state import Run
from gradex_fast.train import total_steps, train
from gradex_fast.types import Example


def fine_tune(
    run: Run, name: str, examples: Sequence[Example], recipe: TrainRecipe, start: Path | None = None
) -> dict[str, Any]:
    """Train in folder `name` from the pretrained model, once; return its figures. From `start` no model is kept."""
    data = data_checksum(examples, recipe)
    note, folder = run.workspace.done(name), run.path / name
    if note is not None and note["data"] == data and (start or folder.exists()):
        run.reporter.seconds[f"train {name}"] = note["seconds"]
        return note
    if note is not None and not start and folder.exists():
        raise GradexError(f"{folder} is a model trained on other rows; move it away, or begin again with --overwrite")
    with run.reporter.stage(f"train {name}", total_steps(len(examples), recipe)) as stage:
        model = load_model(run.recipe.model, run.recipe.seed, run.device, trained=start)
        check_parameters(run.recipe, model)
        begin, checkpoints = time.monotonic(), run.path / "checkpoints" / f"{name}-{data[:8]}"
        train(model, examples, recipe, pad_id=run.pad_id, folder=checkpoints, seed=run.recipe.seed, stage=stage)
        note = {"data": data, "rows": len(examples), "seconds": time.monotonic() - begin, **figures(run, model)}
        if not start:
            with explained_if_full(folder, 4 * sum(p.numel() for p in trainable(model).values())):
                save_model(model, folder)
                load_tokenizer(run.recipe.model).save_pretrained(folder)
    run.workspace.finish(name, note)
    return note


def data_checksum(examples: Sequence[Example], recipe: TrainRecipe) -> str:
    """Of what a fine-tuning depends on besides where it starts; its note has it as "data"."""
    return checksum(recipe.model_dump_json(), *(example.digest for example in examples))


def true_loss(run: Run, subset: np.ndarray, index: int) -> float:
    """f(S) for real: validation loss after fine-tuning θ* on the subset."""
    chosen = np.flatnonzero(subset[: len(run.corpus.sources)])
    recipe = run.recipe.estimate.anchor_train or run.recipe.train
    start = run.path / "meta"
    return fine_tune(run, f"anchor {index + 1}", run.examples(chosen), recipe, start)["validation_loss"]


def figures(run: Run, model: nn.Module) -> dict[str, float]:
    """Mean loss and share of rows wholly right, on validation and (where there is one) test.

    Raises:
        GradexError: a loss is not finite.
    """
    measured: dict[str, float] = {}
    for split, source in (("validation", run.corpus.validation), ("test", run.corpus.test)):
        if source.examples:
            found = evaluate(model, source.examples, pad_id=run.pad_id, batch_tokens=run.recipe.sketch.batch_tokens)
            if not np.isfinite(found.loss).all():
                raise GradexError(f"the {split} loss after training is not finite; lower train.learning_rate")
            measured[f"{split}_loss"] = float(found.loss.mean())
            measured[f"{split}_exact_match"] = float(found.correct.mean())
    return measured
