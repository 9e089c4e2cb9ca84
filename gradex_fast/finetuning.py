"""One fine-tuning of a run: trained once, measured, noted in the run's directory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gradex_fast import sharded
from gradex_fast.costs import Cost, together
from gradex_fast.errors import GradexError
from gradex_fast.evaluate import evaluate
from gradex_fast.files import checksum, explained_if_full
from gradex_fast.gathering import gathered, is_split
from gradex_fast.model import load_model, load_tokenizer, save_model
from gradex_fast.modules import trainable
from gradex_fast.preflight import check_parameters
from gradex_fast.sections import MetaRecipe, TrainRecipe
from gradex_fast.state import Run
from gradex_fast.stopping import EarlyStopping
from gradex_fast.train import total_steps, train
from gradex_fast.types import Example

_LOOK = 0.5
"""Seconds between two looks at whether the first process has finished."""

PLAIN = MetaRecipe()
"""No more than `TrainRecipe` says."""


def meta_train(run: Run) -> dict[str, Any]:
    """θ*, in folder "meta": trained on all rows as ``meta`` says, or the given adapter, or the pretrained model."""
    recipe = run.recipe.meta
    return fine_tune(run, "meta", run.examples() if recipe.training == "all" else [], run.recipe.train, meta=recipe)


def fine_tune(
    run: Run,
    name: str,
    examples: Sequence[Example],
    recipe: TrainRecipe,
    start: Path | None = None,
    meta: MetaRecipe = PLAIN,
) -> dict[str, Any]:
    """Train in folder `name` from the pretrained model, once; return its figures. From `start` no model is kept.

    Without examples nothing is trained.
    """
    data = data_checksum(examples, recipe, meta)
    note, folder = run.workspace.done(name), run.path / name
    if note is not None and note["data"] == data and (start or folder.exists()):
        run.reporter.seconds[f"train {name}"] = note["seconds"]
        run.costs[f"train {name}"] = fine_tuning_cost(run, examples, recipe, note, meta)
        return note
    if note is not None and not start and folder.exists():
        raise GradexError(f"{folder} is a model trained on other rows; move it away, or begin again with --overwrite")
    steps = total_steps(len(examples), recipe, run.ranks.training) if examples else 0
    with run.reporter.stage(f"train {name}", steps, "steps") as stage:
        given = start or (Path(meta.adapter) if meta.adapter else None)
        model = load_model(run.recipe.model, run.recipe.seed, _device(run, examples), trained=given)
        check_parameters(run.recipe, model)
        begin, checkpoints = time.monotonic(), _checkpoints(run, name, data)
        stopping = _stopping(run, meta, steps)
        if examples:
            places = {"pad_id": run.pad_id, "folder": checkpoints, "seed": run.recipe.seed, "stage": stage}
            train(model, examples, recipe, **places, sam=meta.sam, stopping=stopping)
        note = {"data": data, "rows": len(examples), "seconds": time.monotonic() - begin, **figures(run, model)}
        note |= _account(run, meta, stopping)
        values = gathered(model) if is_split(model) and not start else None
        if not start and run.ranks.leads:
            with explained_if_full(folder, 4 * sum(p.numel() for p in trainable(model).values())):
                save_model(model, folder, values)
                load_tokenizer(run.recipe.model).save_pretrained(folder)
    run.workspace.finish(name, note)
    if not run.ranks.leads:
        note = _awaited(run, name, data)
    run.costs[f"train {name}"] = fine_tuning_cost(run, examples, recipe, note, meta)
    return note


def data_checksum(examples: Sequence[Example], recipe: TrainRecipe, meta: MetaRecipe = PLAIN) -> str:
    """Of what a fine-tuning depends on besides where it starts; its note has it as "data"."""
    options = [] if meta == PLAIN else [meta.key()]
    return checksum(recipe.key(), *options, *(example.digest for example in examples))


def true_loss(run: Run, subset: np.ndarray, index: int) -> float:
    """f(S) for real: validation loss after fine-tuning θ* on the subset."""
    chosen = np.flatnonzero(subset[: len(run.corpus.sources)])
    recipe = run.recipe.estimate.anchor_train or run.recipe.train
    start = run.path / "meta"
    return fine_tune(run, f"anchor {index + 1}", run.examples(chosen), recipe, start)["validation_loss"]


def _stopping(run: Run, meta: MetaRecipe, steps: int) -> EarlyStopping | None:
    def loss(model: nn.Module) -> float:
        return _losses(run, model, "validation")["validation_loss"]

    return EarlyStopping(loss, meta.every, meta.patience, steps) if meta.patience else None


def _device(run: Run, examples: Sequence[Example]) -> str:
    """Where to load a model that is to be trained: in main memory, if FSDP then gives each process a part."""
    return "cpu" if examples and sharded.asked() else run.device


def _checkpoints(run: Run, name: str, data: str) -> Path:
    """Another number of processes makes other steps: it does not go on from these. FSDP's hold other files."""
    several = f"-by-{run.ranks.training}" if run.ranks.training > 1 else ""
    several += "-fsdp" if sharded.asked() else ""
    return run.path / "checkpoints" / f"{name}-{data[:8]}{several}"


def _awaited(run: Run, name: str, data: str) -> dict[str, Any]:
    """What the first process notes, once it has written the model."""
    while (note := run.workspace.done(name)) is None or note["data"] != data:
        time.sleep(_LOOK)
    return note


def _account(run: Run, meta: MetaRecipe, stopping: EarlyStopping | None) -> dict[str, Any]:
    """What a note and the report say of this training and of no plain one."""
    sam = {"sam": meta.sam} if meta.sam else {}
    sam |= {"processes": run.ranks.training} if run.ranks.training > 1 else {}
    return sam | ({"best_step": stopping.best, "looks": len(stopping.looks)} if stopping else {})


def fine_tuning_cost(
    run: Run, examples: Sequence[Example], recipe: TrainRecipe, note: Mapping[str, Any], meta: MetaRecipe = PLAIN
) -> Cost:
    """Of the training that the note is of, its looks at the validation rows, and the figures at its end."""
    looks, validation = note.get("looks", 0), run.corpus.validation.examples
    processes = note.get("processes", 1)
    steps = min(looks * meta.every, total_steps(len(examples), recipe, processes)) if looks else None
    trained = run.passes.training(examples, recipe, steps, processes).times(meta.passes)
    ends = run.passes.forward([*validation, *run.corpus.test.examples])
    return together([trained, run.passes.forward(validation).times(looks), ends]).taking(note["seconds"])


def figures(run: Run, model: nn.Module) -> dict[str, float]:
    """Mean loss and share of rows wholly right, on validation and (where there is one) test.

    Raises:
        GradexError: a loss is not finite.
    """
    return _losses(run, model, "validation") | _losses(run, model, "test")


def _losses(run: Run, model: nn.Module, split: str) -> dict[str, float]:
    examples = getattr(run.corpus, split).examples
    if not examples:
        return {}
    found = evaluate(model, examples, pad_id=run.pad_id, batch_tokens=run.recipe.sketch.batch_tokens)
    if not np.isfinite(found.loss).all():
        raise GradexError(f"the {split} loss after training is not finite; lower train.learning_rate")
    return {f"{split}_loss": float(found.loss.mean()), f"{split}_exact_match": float(found.correct.mean())}
