"""What traker's `TRAKer` needs to do what `Sketcher` does: a language model's margin, LoRA's gradients alone, our P."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from trak import TRAKer
from trak.gradient_computers import FunctionalGradientComputer
from trak.modelout_functions import AbstractModelOutput
from trak.projectors import AbstractProjector, BasicProjector, ProjectionType

from gradex_fast import kernels
from gradex_fast.modules import trainable
from gradex_fast.types import UNSUPERVISED

Batch = tuple[torch.Tensor, torch.Tensor]
"""input_ids and labels [n, t], all rows of one length: vmap takes no attention mask."""


class SequenceMargin(AbstractModelOutput):
    """h = log(p / (1 - p)) with p = exp(-ℓ), ℓ the mean over a row's supervised tokens."""

    def __init__(self) -> None: ...

    @staticmethod
    def get_output(model, weights, buffers, input_ids, labels) -> torch.Tensor:
        loss = _losses(model, weights, buffers, input_ids[None], labels[None]).sum()
        return -loss - torch.log(-torch.expm1(-loss))

    def get_out_to_loss_grad(self, model, weights, buffers, batch: Batch) -> torch.Tensor:
        with torch.no_grad():
            return -torch.expm1(-_losses(model, weights, buffers, *batch))[:, None]


class AdapterGradients(FunctionalGradientComputer):
    """Gradients by trainable parameters only; as it comes, traker takes them by all and throws most away."""

    def load_model_params(self, model: nn.Module) -> None:
        self.func_weights = trainable(model)
        frozen = {name: parameter for name, parameter in model.named_parameters() if not parameter.requires_grad}
        self.func_buffers = {**dict(model.named_buffers()), **frozen}


class OurProjection(AbstractProjector):
    """`kernels.project` of every parameter, whose P hangs on its name.

    Args:
        prefix: that the names have in traker's model beyond those in the sketched one.
    """

    def __init__(self, dim: int, prefix: str = "") -> None:
        super().__init__(0, dim, 0, ProjectionType.normal, "cpu")
        self._prefix = prefix

    def project(self, grads: Mapping[str, torch.Tensor], model_id: int) -> torch.Tensor:
        plan = {"seed": self.seed + model_id, "dim": self.proj_dim}
        named = {name.removeprefix(self._prefix): rows.flatten(1).contiguous() for name, rows in grads.items()}
        return sum(kernels.project(rows, name=name, **plan) for name, rows in named.items())


def basic_projection(model: nn.Module, dim: int, block: int) -> BasicProjector:
    """traker's own on the CPU: P in blocks of columns, drawn again for every batch unless one block holds all."""
    size = sum(parameter.numel() for parameter in trainable(model).values())
    return BasicProjector(size, dim, 0, ProjectionType.normal, "cpu", block_size=block)


def language_traker(
    model: nn.Module, rows: int, projector: AbstractProjector, folder: Path, *, adapters_only: bool
) -> TRAKer:
    """Ready to featurise `rows` rows of a language model, in float32."""
    computer = AdapterGradients if adapters_only else FunctionalGradientComputer
    options = {"projector": projector, "proj_dim": projector.proj_dim, "use_half_precision": False, "logging_level": 40}
    traker = TRAKer(
        model,
        SequenceMargin(),
        rows,
        str(folder),
        device="cpu",
        gradient_computer=computer,
        grad_wrt=list(trainable(model)),
        **options,
    )
    traker.load_checkpoint(model.state_dict(), model_id=0)
    return traker


def featurise(traker: TRAKer, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Pᵀ∇h / √p [n, d] and Q = 1 - p [n] of one batch; made again whether or not they are there."""
    store = traker.saver.current_store
    store["is_featurized"][:] = 0
    traker.featurize(batch, inds=np.arange(len(batch[0])))
    return np.array(store["grads"]), np.array(store["out_to_loss"])[:, 0]


def _losses(model, weights, buffers, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """ℓ [n]."""
    logits = torch.func.functional_call(model, (weights, buffers), (), {"input_ids": input_ids}).logits[:, :-1]
    targets = labels[:, 1:]
    losses = cross_entropy(logits.transpose(1, 2), targets, reduction="none", ignore_index=UNSUPERVISED)
    return losses.sum(1) / (targets != UNSUPERVISED).sum(1)
