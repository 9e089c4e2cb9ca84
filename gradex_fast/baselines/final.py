"""What each rival's choice is worth: the figures of the model finally trained on it, from the pretrained one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from torch import nn

from gradex_fast.baselines.features import backbone
from gradex_fast.baselines.table import Row
from gradex_fast.errors import GradexError
from gradex_fast.files import checksum, read_json, write_json
from gradex_fast.finetuning import figures, fine_tuning_cost
from gradex_fast.model import load_model
from gradex_fast.modules import trainable
from gradex_fast.state import Run
from gradex_fast.train import total_steps, train
from gradex_fast.types import Example
from gradex_fast.workspace import lasting

Figures = dict[str, Any]


def finals(run: Run, rows: Sequence[Row]) -> dict[str, Figures]:
    """By rival: loss and share of rows wholly right on validation and test rows, and the seconds of the training.

    Equal choices are one training, kept on disk; where there is nothing to train on it is the pretrained model.
    """
    return {row.name: trained_on(run, row.outcome.selection.chosen) for row in rows}


def trained_on(run: Run, chosen: Sequence[int]) -> Figures:
    """Figures of the pretrained model after a training on these sources and the target's own rows, and its FLOPs."""
    examples = run.examples(sorted(chosen)) if len(chosen) else []
    found = _once(run, "model", examples)
    return {**found, "flops": fine_tuning_cost(run, examples, run.recipe.train, found).values()["flops"]}


def feature_transfer(run: Run) -> Figures:
    """Figures of the pretrained model when its head alone is trained, on all rows (the paper's feature transfer).

    Raises:
        GradexError: the model has no head apart from its embeddings, or the adapter does not train it.
    """
    return _once(run, "head", run.examples())


def _once(run: Run, part: str, examples: Sequence[Example]) -> Figures:
    recipe, digests = run.recipe.train, [example.digest for example in examples]
    identity = [f"{name}={value}" for name, value in lasting(run.identity).items()]
    key = checksum(part, *identity, recipe.key(), *digests)
    place = run.path / "rivals" / "finals" / f"{key}.json"
    if (known := read_json(place)) is not None:
        return known
    begin, model = time.monotonic(), load_model(run.recipe.model, run.recipe.seed, run.device)
    if part == "head":
        _only_head(model)
    if examples:
        with run.reporter.stage("train on a rival's choice", total_steps(len(examples), recipe), "steps") as stage:
            folder = run.path / "checkpoints" / f"rival-{key[:16]}"
            train(model, examples, recipe, pad_id=run.pad_id, folder=folder, seed=run.recipe.seed, stage=stage)
    note = {"rows": len(examples), "seconds": time.monotonic() - begin, **figures(run, model)}
    write_json(place, note)
    return note


def _only_head(model: nn.Module) -> None:
    """Freeze all but the trainable parameters outside the backbone."""
    inner = {id(parameter) for parameter in backbone(model).parameters()}
    head = [parameter for parameter in trainable(model).values() if id(parameter) not in inner]
    if not head:
        raise GradexError(
            "feature transfer trains the output head alone, and this model has none that is trained and is not "
            "its embedding; it is for classifiers, or for model.adapter=full with untied embeddings"
        )
    for parameter in trainable(model).values():
        parameter.requires_grad_(any(parameter is own for own in head))
