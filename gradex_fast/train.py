"""One train(), called for meta-training, anchors and the final run, on transformers' Trainer."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from gradex_fast import joint, selfcheck
from gradex_fast.batch import Batch, collate
from gradex_fast.errors import GradexError
from gradex_fast.files import checksum, explained_if_full, read_json
from gradex_fast.fitting import failure_of
from gradex_fast.losses import packed_losses, sample_losses, token_losses
from gradex_fast.model import trainable
from gradex_fast.pieces import Pieces
from gradex_fast.progress import Stage
from gradex_fast.ranks import Ranks
from gradex_fast.reporting import end_reports, place_reports
from gradex_fast.sections import TrainRecipe
from gradex_fast.sharpness import SharpnessAware
from gradex_fast.stopping import EarlyStopping
from gradex_fast.termination import held_back
from gradex_fast.types import Example

_log = logging.getLogger(__name__)


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
        "callbacks": [*([stopping] if stopping else []), _StageCallback(stage)],
    }
    trainer = _SharpnessAwareTrainer(rho=sam, **parts) if sam else _SampleMeanTrainer(**parts)
    trainer.remove_callback(PrinterCallback)
    place_reports(trainer.callback_handler.callbacks, folder)
    checkpoint = sum(12 * parameter.numel() for parameter in trainable(model).values())  # weights, two moments
    if joint.leads():
        _remove_broken(folder)
    joint.wait()
    last = _last_checkpoint(folder)
    if stopping:
        stopping.open(folder, int(last.rpartition("-")[2]) if last else 0)
    with explained_if_full(folder, checkpoint), held_back() as asked:
        trainer.add_callback(_SaveAndStop(asked))
        if not (stopping and stopping.over):
            trainer.train(resume_from_checkpoint=last)
    end_reports(recipe)
    joint.wait()  # the first process has written its best look
    if stopping:
        stopping.restore(model)
    for name, parameter in trainable(model).items():
        if not torch.isfinite(parameter).all():
            raise GradexError(f"{name} is not finite after the last step: {_hint(recipe.learning_rate)}")
    joint.wait()
    if joint.leads():
        _remove(folder)


def total_steps(samples: int, recipe: TrainRecipe, processes: int = 1) -> int:
    """Optimiser steps of one training, by so many processes together."""
    if recipe.steps:
        return recipe.steps
    batches = math.ceil(math.ceil(samples / recipe.batch_size) / processes)
    return max(1, math.ceil(recipe.epochs * math.ceil(batches / recipe.accumulation)))


class _SampleMeanTrainer(Trainer):
    """A step's loss = mean over its samples of each sample's mean token loss, as in the estimate's F_S (DESIGN §2).

    transformers' own loss is a mean over tokens, in which long answers weigh more.

    A step's samples are those of ``batch_size`` and ``accumulation``, however they go through the model: in packed
    rows, or fewer at a time once memory ran out. The Trainer's own auto_find_batch_size would change the step.
    """

    def __init__(self, *, pieces: Pieces, **named) -> None:
        super().__init__(**named)
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = True  # compute_loss divides by a step's samples
        self._pieces, self._batches = pieces, []

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The batches that accumulate to one step, and how many samples they hold: the last one may be short.

        Of several processes, whose gradients are averaged, each has as many.
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(len(batch["input_ids"]) for batch in batches)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """The gradients of one more batch; when memory runs out, those of all batches of the step anew."""
        if all(parameter.grad is None for parameter in model.parameters()):
            self._batches = []
        self._batches.append(inputs)
        batches = [inputs]
        while (loss := self._accumulated(model, batches, num_items_in_batch)) is None:
            model.zero_grad()  # the pass that failed may have left a part of its own
            batches = self._batches
        return loss

    def _accumulated(self, model, batches, samples: int) -> torch.Tensor | None:
        """The last batch's loss; None if memory ran out, and smaller pieces may do."""
        for batch in batches:
            losses: list[torch.Tensor] = []
            *others, last = self._pieces.of(batch)
            for piece in (*others, last):
                with nullcontext() if piece is last else self.accelerator.no_sync(model):  # once for each batch
                    failure = self._failure(model, piece, samples, losses)
                if failure:
                    self._make_smaller(piece, failure)
                    return None
        return sum(losses)

    def _failure(self, model, piece, samples: int, losses: list[torch.Tensor]) -> str | None:
        def work() -> None:
            losses.append(Trainer.training_step(self, model, piece, samples))

        if self.args.world_size == 1:
            return failure_of(work)
        work()  # the other processes wait for as many passes as they make themselves

    def _make_smaller(self, piece: Batch, failure: str) -> None:
        if not self._pieces.halve(piece):
            raise GradexError(
                f"a sample of {piece['input_ids'].shape[1]} tokens does not fit in memory by itself ({failure}); set "
                "model.gradient_checkpointing=true, lower data.max_length, or take a smaller model or dtype"
            )
        _log.warning("memory ran out: from now on a training pass has at most %d tokens", self._pieces.tokens)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if "position_ids" in inputs:
            losses = packed_losses(model, inputs)
        else:
            losses = sample_losses(*token_losses(model, inputs)[:2])
        loss = (losses.sum() / num_items_in_batch).to(self.args.device)
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


class _SaveAndStop(TrainerCallback):
    """At the end of the step in which SIGTERM came: a checkpoint, and no further step."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def on_step_end(self, args, state, control, **named) -> None:
        if joint.any_of(self._asked()):
            control.should_save = control.should_training_stop = True


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
        report_to=list(recipe.report_to) or "none",
        run_name=f"{folder.resolve().parents[1].name} {folder.name}",
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
    """The newest checkpoint that was written to its end."""
    whole = [path for path in folder.glob("checkpoint-*") if _is_whole(path)]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


def _remove_broken(folder: Path) -> None:
    """The Trainer would take a checkpoint that was cut off for its newest, and delete a whole one."""
    for path in folder.glob("checkpoint-*"):
        if not _is_whole(path):
            shutil.rmtree(path)


def _is_whole(checkpoint: Path) -> bool:
    """The Trainer writes its state file last."""
    return read_json(checkpoint / "trainer_state.json") is not None
