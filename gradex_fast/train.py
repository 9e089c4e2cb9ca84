"""One train(), called for meta-training, anchors and the final run, on transformers' Trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.trainer_callback import PrinterCallback

from gradex_fast import joint, selfcheck, sharded
from gradex_fast.batch import collate
from gradex_fast.checkpoints import last_checkpoint, remove, remove_broken
from gradex_fast.errors import GradexError
from gradex_fast.files import checksum, explained_if_full
from gradex_fast.gathering import own
from gradex_fast.modules import trainable
from gradex_fast.pieces import Pieces
from gradex_fast.progress import Stage
from gradex_fast.ranks import Ranks
from gradex_fast.reporting import end_reports, place_reports
from gradex_fast.sections import TrainRecipe
from gradex_fast.stopping import EarlyStopping
from gradex_fast.termination import held_back
from gradex_fast.trainer import SampleMeanTrainer, SaveAndStop, SharpnessAwareTrainer, StageCallback, hint
from gradex_fast.types import Example


def train(
    model: nn.Module,
    examples: Sequence[Example],
    recipe: TrainRecipe,
    *,
    pad_id: int,
    folder: Path,
    seed: int,
    stage: Stage,
    sam: float = 0.0,
    stopping: EarlyStopping | None = None,
) -> None:
    """Fine-tune `model` in place; every sample has the same weight, whatever its length.

    Several processes (`Ranks.here`) train it together: a step has the samples of all of them, as many times
    ``batch_size``. At the end of an epoch that they do not divide, a few samples count twice.

    Interrupted, the same call goes on from the last whole checkpoint in `folder` and ends with the same
    parameters as an uninterrupted one; the folder is removed at the end.

    Args:
        sam: ρ of sharpness-aware minimisation; 0: off.

    Raises:
        GradexError: the loss or a trained parameter is not finite; the message names the step or the parameter. Or a
            sample does not fit in memory by itself, or packing is asked for and the model mixes packed samples.
        Terminated: SIGTERM came; a checkpoint of the last whole step is in `folder`.
    """
    steps = total_steps(len(examples), recipe, Ranks.here().count)
    if sharded.asked():
        sharded.settle(model)
    arguments = _arguments(recipe, folder, seed, steps, next(model.parameters()).device)
    joint.require_same(checksum(*(example.digest for example in examples)), "the training rows")
    if recipe.packing:
        selfcheck.require_packable(model, examples, pad_id)
    parts = {
        "pieces": Pieces(recipe.packed_tokens if recipe.packing else None),
        "model": model,
        "args": arguments,
        "train_dataset": list(examples),
        "data_collator": partial(collate, pad_id=pad_id),
        "callbacks": [*([stopping] if stopping else []), StageCallback(stage)],
    }
    trainer = SharpnessAwareTrainer(rho=sam, **parts) if sam else SampleMeanTrainer(**parts)
    if sharded.asked() and not trainer.is_fsdp_enabled:
        raise GradexError(
            "this process was started for FSDP, which accelerate has for several processes with GPUs only: start it "
            "for plain data parallelism (torchrun, examples/accelerate/ddp.yaml)"
        )
    trainer.remove_callback(PrinterCallback)
    place_reports(trainer.callback_handler.callbacks, folder)
    checkpoint = sum(12 * parameter.numel() for parameter in trainable(model).values())  # weights, two moments
    if joint.leads():
        remove_broken(folder)
    joint.wait()
    last = last_checkpoint(folder)
    if stopping:
        stopping.open(folder, int(last.rpartition("-")[2]) if last else 0)
    with explained_if_full(folder, checkpoint), held_back() as asked:
        trainer.add_callback(SaveAndStop(asked))
        if not (stopping and stopping.over):
            trainer.train(resume_from_checkpoint=last)
    end_reports(recipe)
    joint.wait()  # the first process has written its best look
    if stopping:
        stopping.restore(model)
    for name, parameter in trainable(model).items():
        if joint.any_of(not torch.isfinite(own(parameter)).all()):
            raise GradexError(f"{name} is not finite after the last step: {hint(recipe.learning_rate)}")
    if joint.leads():
        remove(folder)


def total_steps(samples: int, recipe: TrainRecipe, processes: int = 1) -> int:
    """Optimiser steps of one training, by so many processes together."""
    if recipe.steps:
        return recipe.steps
    batches = math.ceil(math.ceil(samples / recipe.batch_size) / processes)
    return max(1, math.ceil(recipe.epochs * math.ceil(batches / recipe.accumulation)))


def _arguments(recipe: TrainRecipe, folder: Path, seed: int, steps: int, device: torch.device) -> TrainingArguments:
    on_cpu = device.type == "cpu" and not sharded.asked()  # to be split, a model waits in main memory
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.batch_size,
        gradient_accumulation_steps=recipe.accumulation,
        max_steps=steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=round(recipe.warmup * steps),
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        seed=seed,
        data_seed=seed,
        save_strategy="steps" if recipe.checkpoints else "no",
        save_steps=max(1, steps // (recipe.checkpoints + 1)),
        save_total_limit=1,
        logging_steps=max(1, steps // 100),
        logging_nan_inf_filter=False,
        report_to=list(recipe.report_to) or "none",
        run_name=f"{folder.resolve().parents[1].name} {folder.name}",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu and torch.cuda.is_available(),
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}} if sharded.asked() else None,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # the Trainer would wrap several in DataParallel: another batch size
    return arguments
