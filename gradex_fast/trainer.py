"""Trainers whose step is the mean over its samples, in whatever pieces these go through the model; what they call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from math import inf

import torch
from transformers import Trainer, TrainerCallback

from gradex_fast import joint
from gradex_fast.batch import Batch
from gradex_fast.errors import GradexError
from gradex_fast.fitting import failure_of
from gradex_fast.losses import packed_losses, sample_losses, token_losses
from gradex_fast.pieces import Pieces
from gradex_fast.progress import Stage
from gradex_fast.sharpness import SharpnessAware

_log = logging.getLogger(__name__)


class SampleMeanTrainer(Trainer):
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

    def save_model(self, output_dir=None, _internal_call=False):
        """In a checkpoint. FSDP's own files hold all that is trained; the whole model would be gathered for nothing."""
        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)

    def _accumulated(self, model, batches, samples: int) -> torch.Tensor | None:
        """The last batch's loss; None if memory ran out, and smaller pieces may do."""
        for batch in batches:
            losses: list[torch.Tensor] = []
            *others, last = self._pieces.of(batch)
            if self.is_fsdp_enabled:  # every pass is one of all processes: those with fewer pieces add some of weight 0
                for _ in range(joint.most(len(others)) - len(others)):
                    Trainer.training_step(self, model, last, inf)
            for piece in (*others, last):
                whole = piece is last or self.is_fsdp_enabled  # else gradients are exchanged once for each batch
                with nullcontext() if whole else self.accelerator.no_sync(model):
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
                f"{hint(self.args.learning_rate)}"
            )
        return loss


def hint(rate: float) -> str:
    """What to do about a loss that is not finite."""
    return f"lower train.learning_rate (now {rate:g}) or look for broken rows; finished stages are kept"


class SharpnessAwareTrainer(SharpnessAware, SampleMeanTrainer):
    """The same loss, at the worst point near by."""


class StageCallback(TrainerCallback):
    def __init__(self, stage: Stage) -> None:
        self._stage, self._loss = stage, ""

    def on_train_begin(self, args, state, control, **named) -> None:
        self._stage.advance(state.global_step)

    def on_log(self, args, state, control, logs=None, **named) -> None:
        self._loss = f"loss {logs['loss']:.4f}" if logs and "loss" in logs else self._loss

    def on_step_end(self, args, state, control, **named) -> None:
        self._stage.advance(1, self._loss)


class SaveAndStop(TrainerCallback):
    """At the end of the step in which SIGTERM came: a checkpoint, and no further step."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def on_step_end(self, args, state, control, **named) -> None:
        if joint.any_of(self._asked()):
            control.should_save = control.should_training_stop = True
