"""One pass of a model over a batch: every sample's projected gradient and margin. No files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from gradex_fast import kernels, selfcheck
from gradex_fast.batch import collate
from gradex_fast.capture import Capture
from gradex_fast.errors import GradexError
from gradex_fast.fitting import Budget, in_batches
from gradex_fast.losses import MARGINS, sample_losses, token_losses
from gradex_fast.memory import Saved
from gradex_fast.modes import evaluating
from gradex_fast.modules import encodes, grouped, trainable
from gradex_fast.rows import Packed, Rows, laid_out
from gradex_fast.taps import RowsUnknown
from gradex_fast.terms import Term, add_gradient, add_sketch, width
from gradex_fast.types import Example, Sketches

if TYPE_CHECKING:
    from gradex_fast.progress import Stage

_log = logging.getLogger(__name__)


class Sketcher:
    """Per-sample sketches of a model's trainable parameters.

    Args:
        model: a transformers (or PEFT) model, or any whose outputs have `logits`; it is run in evaluation mode.
        dim: d, columns of the projection. seed: which P.
        distribution: of its entries: "gaussian", "rademacher" or "tensorsketch"; `kernels.sketch` says when which.
        margin: "sequence" or "token", see DESIGN §2.
        parameters: regular expression; only trainable parameters whose name it finds are sketched. Or one for each of
            some groups, by name, which `by_group` sketches apart.
        threads: CPU threads of the kernels.

    Raises:
        ValueError: unknown margin, no parameter matches, or one is in two groups.
        GradexError: the model has virtual tokens (prompt tuning and its kin).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        dim: int = 100,
        seed: int = 0,
        distribution: str = "gaussian",
        margin: str = "sequence",
        parameters: str | Mapping[str, str] | None = None,
        threads: int | None = None,
    ) -> None:
        if margin not in MARGINS:
            raise ValueError(f"margin must be one of {tuple(MARGINS)}, got {margin!r}")
        _refuse_virtual_tokens(model)
        self.model, self.dim, self._margin = model, dim, MARGINS[margin]
        self._plan = {"seed": seed, "dim": dim, "distribution": distribution, "threads": threads}
        patterns = parameters if isinstance(parameters, Mapping) else {"": parameters}
        self._group = grouped(trainable(model), patterns)
        self._capture, self._checked, self._apart = Capture(model, self._group), False, False
        self._announce(self._capture.slow)

    def __call__(self, batch: Mapping[str, torch.Tensor]) -> Sketches:
        """Sketch a batch of n rows: input_ids, attention_mask [n, t], labels [n, t] (-100: no loss) or [n].

        Or one row [1, total] of n packed samples, without padding: input_ids, labels, and either position_ids that
        start at 0 again or cu_seqlens [n + 1] (`rows.laid_out`).

        A row whose gradient is not finite has non-finite entries in `g`; the others are unaffected.

        Raises:
            GradexError: on the first batch, the taps missed a part of one row's gradient; or the model does not keep
                packed samples apart.
            ValueError: a packed batch of the wrong shape.
        """
        groups, margin, loss = self._pass(batch)
        return Sketches(sum(groups.values()), margin, loss)

    def by_group(self, batch: Mapping[str, torch.Tensor]) -> dict[str, Sketches]:
        """The sketches of every group of `parameters` apart, in one pass; they add up to those of a call."""
        groups, margin, loss = self._pass(batch)
        return {group: Sketches(g, margin, loss) for group, g in groups.items()}

    def _pass(self, batch: Mapping[str, torch.Tensor]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """g [n, d] of every group, margin [n] and loss [n]; again as long as parameters turn out to have no tap."""
        device = next(self.model.parameters()).device
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        given, rows = laid_out(batch, encodes(self.model))
        if isinstance(rows, Packed) and not self._apart:
            with evaluating(self.model):
                self._apart = selfcheck.require_apart(self.model, given, rows)
        while True:
            try:
                return self._sketch(given, rows)
            except RowsUnknown as unknown:
                self._announce({name: self._capture.parameters[name] for name in unknown.parameters}, f" ({unknown})")
                self._capture.give_up(unknown.parameters)

    def _sketch(
        self, batch: Mapping[str, torch.Tensor], rows: Rows
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        zeros = torch.zeros(rows.samples, self.dim, device=batch["input_ids"].device)
        groups = {group: zeros.clone() for group in self._group.values()}

        def receive(name: str, term: Term) -> None:
            add_sketch(groups[self._group[name]], term, name, self._plan)

        with evaluating(self.model), self._capture.taps(rows, receive) as leaf, torch.enable_grad():
            losses, supervised = (rows.per_sample(t) for t in token_losses(self.model, batch, rows.packed)[:2])
            margin, objective = self._margin(losses, supervised)
            if self._capture.slow:
                self._capture.listening = False
                self._one_by_one(objective, groups)
            self._capture.listening = True
            torch.autograd.grad(objective.sum(), leaf, allow_unused=True)
        loss = sample_losses(losses.detach(), supervised).double()
        if not self._checked:
            row = int(loss.nan_to_num().argmax())
            self._check(rows.alone(batch, row), sum(g[row] for g in groups.values()))
        found = {group: g.cpu().numpy() for group, g in groups.items()}
        return found, margin.double().cpu().numpy(), loss.cpu().numpy()

    def bytes_needed(self, batch: Mapping[str, torch.Tensor]) -> int:
        """What a pass over the batch holds at its height beside the model: an estimate, from a forward pass."""
        device = next(self.model.parameters()).device
        given, rows = laid_out({name: tensor.to(device) for name, tensor in batch.items()}, encodes(self.model))
        taps = self._capture.taps(rows, lambda name, term: None)
        with evaluating(self.model), taps, torch.enable_grad(), Saved(self.model) as saved:
            token_losses(self.model, given, rows.packed)
        return saved.peak

    @contextmanager
    def moved(self, x: np.ndarray) -> Iterator[None]:
        """While open, the model stands at θ* + lift(x), that is P x / √d, x [d] (Algorithm 1, line 10)."""
        weights = torch.as_tensor(x, dtype=torch.float32)[None]
        before = {name: parameter.detach().clone() for name, parameter in self._capture.parameters.items()}
        plan = {key: self._plan[key] for key in ("seed", "distribution", "threads")}
        try:
            with torch.no_grad():
                for name, parameter in self._capture.parameters.items():
                    own = {"name": name, "width": width(parameter), **plan}
                    step = kernels.lift(weights.to(parameter.device), parameter.numel(), **own)
                    parameter += step.reshape(parameter.shape).to(parameter.dtype)
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._capture.parameters.items():
                    parameter.copy_(before[name])

    def _check(self, alone: Mapping[str, torch.Tensor], found: torch.Tensor) -> None:
        """Once, on one row of the first batch; the row of largest loss, whose gradient has the least rounding error."""
        parameters = self._capture.parameters
        if sum(parameter.numel() for parameter in parameters.values()) <= selfcheck.LARGEST:
            with evaluating(self.model):
                selfcheck.check_row(self.model, self._capture, alone, self._margin, self._plan, found)
        self._checked = True

    def _announce(self, slow: Mapping[str, nn.Parameter], why: str = "") -> None:
        if slow:
            count = sum(parameter.numel() for parameter in slow.values())
            _log.warning("%d parameters have no tap and take the slow way: %s%s", count, ", ".join(slow), why)

    def _one_by_one(self, objective: torch.Tensor, groups: Mapping[str, torch.Tensor]) -> None:
        """The exact slow way for parameters without a tap: one backward pass per sample through the same graph."""
        slow = self._capture.slow
        for row, term in enumerate(objective):
            found = torch.autograd.grad(term, list(slow.values()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(slow, found, strict=True):
                if gradient is not None:
                    g = groups[self._group[name]][row : row + 1]
                    add_gradient(g, gradient, name, self._plan, width(gradient))


def _refuse_virtual_tokens(model: nn.Module) -> None:
    for config in getattr(model, "peft_config", {}).values():
        if config.is_prompt_learning:
            kind = str(getattr(config.peft_type, "value", config.peft_type))
            raise GradexError(f"{kind} puts virtual tokens before every row, which no sketch knows; use LoRA instead")


def nonfinite_rows(sketches: Sketches) -> np.ndarray:
    """Indices of rows with a margin, loss or sketch that is not finite."""
    return np.flatnonzero(~sketches.finite)


def sketch_examples(
    sketcher: Sketcher,
    examples: Sequence[Example],
    *,
    pad_id: int,
    batch_tokens: int | Budget,
    skip_nonfinite: bool = False,
    stage: Stage | None = None,
) -> Sketches:
    """Sketches of all examples, in their order; batches are made of rows of similar length.

    Args:
        batch_tokens: padded tokens in one pass, or a `Budget`, which remembers between calls what did not fit.

    Raises:
        GradexError: a gradient is not finite and `skip_nonfinite` is off, or a row does not fit in memory by itself;
            the message names the sample. Or the model mixes the samples of a batch.
    """
    n = len(examples)
    whole = Sketches(np.zeros((n, sketcher.dim), np.float32), np.zeros(n), np.zeros(n))

    def sketch(rows: list[int]) -> None:
        part = _sketched(sketcher, [examples[row] for row in rows], pad_id, skip_nonfinite)
        whole.g[rows], whole.margin[rows], whole.loss[rows] = part.g, part.margin, part.loss
        if stage:
            stage.advance(len(rows))

    def weigh(example: Example) -> int:
        return sketcher.bytes_needed(collate([example], pad_id))

    in_batches(examples, Budget.of(batch_tokens), sketch, weigh)
    return whole


def _sketched(sketcher: Sketcher, examples: Sequence[Example], pad_id: int, skip_nonfinite: bool) -> Sketches:
    found = sketcher(collate(examples, pad_id))
    broken = nonfinite_rows(found)
    if len(broken) and not skip_nonfinite:
        raise GradexError(
            f"the gradient of sample {examples[broken[0]].id} is not finite ({len(broken)} in its batch); "
            "mend the row, or set sketch.on_nonfinite=skip"
        )
    return found
