"""One train(), called for meta-training, anchors and the final run, on transformers' Trainer."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from gradex_fast.batch import collate
from gradex_fast.errors import GradexError
from gradex_fast.files import explained_if_full, read_json
from gradex_fast.losses import sample_losses, token_losses
from gradex_fast.model import trainable
from gradex_fast.progress import Stage
from gradex_fast.sections import TrainRecipe
from gradex_fast.sharpness import SharpnessAware
from gradex_fast.stopping import EarlyStopping
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

    Interrupted, the same call goes on from the last whole checkpoint in `folder` and ends with the same
    parameters as an uninterrupted one; the folder is removed at the end.

    Args:
        sam: ρ of sharpness-aware minimisation; 0: off.

    Raises:
        GradexError: the loss or a trained parameter is not finite; the message names the step or the parameter.
    """
    steps = total_steps(len(examples), recipe)
    arguments = _arguments(recipe, folder, seed, steps, next(model.parameters()).device)
    parts = {
        "model": model,
        "args": arguments,
        "train_dataset": list(examples),
        "data_collator": partial(collate, pad_id=pad_id),
        "callbacks": [*([stopping] if stopping else []), _StageCallback(stage)],
    }
    trainer = _SharpnessAwareTrainer(rho=sam, **parts) if sam else _SampleMeanTrainer(**parts)
    trainer.remove_callback(PrinterCallback)
    checkpoint = sum(12 * parameter.numel() for parameter in trainable(model).values())  # weights, two moments
    last = _last_checkpoint(folder)
    if stopping:
        stopping.open(folder, int(last.rpartition("-")[2]) if last else 0)
    with explained_if_full(folder, checkpoint):
        if not (stopping and stopping.over):
            trainer.train(resume_from_checkpoint=last)
    if stopping:
        stopping.restore(model)
    for name, parameter in trainable(model).items():
        if not torch.isfinite(parameter).all():
            raise GradexError(f"{name} is not finite after the last step: {_hint(recipe.learning_rate)}")
    _remove(folder)


def total_steps(samples: int, recipe: TrainRecipe) -> int:
    """Optimiser steps of one training."""
    if recipe.steps:
        return recipe.steps
    batches = math.ceil(samples / recipe.batch_size)
    return max(1, math.ceil(recipe.epochs * math.ceil(batches / recipe.accumulation)))


class _SampleMeanTrainer(Trainer):
    """A step's loss = mean over its samples of each sample's mean token loss, as in the estimate's F_S (DESIGN §2).

    transformers' own loss is a mean over tokens, in which long answers weigh more.
    """

    def __init__(self, **named) -> None:
        super().__init__(**named)
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = True  # compute_loss divides by a step's samples

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches that accumulate to one step, and how many samples they hold: the last one may be short."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(len(batch["input_ids"]) for batch in batches)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        losses, supervised, _ = token_losses(model, inputs)
        loss = sample_losses(losses, supervised).sum() / num_items_in_batch
        if not torch.isfinite(loss):
            raise GradexError(
                f"the training loss is {loss.item()} at step {self.state.global_step + 1}: "
                f"{_hint(self.args.learning_rate)}"
            )
        return loss


def _hint(rate: float) -> str:
    return f"lower train.learning_rate (now {rate:g}) or look for broken rows; finished stages are kept"


class _SharpnessAwareTrainer(SharpnessAware, _SampleMeanTrainer):
    """The same loss, at the worst point near by."""


class _StageCallback(TrainerCallback):
    def __init__(self, stage: Stage) -> None:
        self._stage, self._loss = stage, ""

    def on_train_begin(self, args, state, control, **named) -> None:
        self._stage.advance(state.global_step)

    def on_log(self, args, state, control, logs=None, **named) -> None:
        self._loss = f"loss {logs['loss']:.4f}" if logs and "loss" in logs else self._loss

    def on_step_end(self, args, state, control, **named) -> None:
        self._stage.advance(1, self._loss)


def _arguments(recipe: TrainRecipe, folder: Path, seed: int, steps: int, device: torch.device) -> TrainingArguments:
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
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # the Trainer would wrap several in DataParallel: another batch size
    return arguments


def _remove(folder: Path) -> None:
    """Renamed first: killed in the middle, this leaves no checkpoint that looks whole and is not."""
    gone = folder.with_name(f"{folder.name}.gone")
    if gone.exists():
        shutil.rmtree(gone)
    if folder.exists():
        folder.rename(gone)
        shutil.rmtree(gone)


def _last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to its end: the Trainer writes its state file last.

    Others are removed, or the Trainer would take one for its newest and delete a whole one.
    """
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in found if read_json(path / "trainer_state.json")]
    for path in found:
        if path not in whole:
            shutil.rmtree(path)
    return str(whole[-1]) if whole else None
