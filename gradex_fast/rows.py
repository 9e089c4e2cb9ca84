"""Which part of a layer's tensors belongs to which sample: rows of a padded batch, or segments of one packed row."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

Batch = Mapping[str, torch.Tensor]


class Padded:
    """n samples in the rows of a batch.

    Args:
        samples: n. tokens: the sequence lengths of the pass (an encoder-decoder has two).
    """

    lengths, packed = None, False

    def __init__(self, samples: int, tokens: tuple[int, ...] = ()) -> None:
        self.samples, self.tokens = samples, tokens

    def layout(self, output: torch.Tensor) -> str | None:
        """How samples lie in a layer's output: "rows" [n, ...], "flat" [n · t, width], "shared" [1, ...], or None.

        "flat" rests on the shape alone, n · t for a t of this pass: a reshape of [n, t, width] (a router's input) has
        it. Were its order another, the self-check of the first batch would say so.
        """
        first = output.shape[0] if output.ndim else 0
        if first == self.samples:
            return "rows"
        if output.ndim == 2 and any(first == self.samples * t for t in self.tokens):
            return "flat"
        return "shared" if first == 1 and output.ndim > 2 else None

    def split(self, tensor: torch.Tensor, layout: str) -> torch.Tensor:
        """A layer's input or output gradient as [n, t, ...]."""
        return tensor.reshape(self.samples, -1, *tensor.shape[1:]) if layout == "flat" else tensor

    def cut(self, tensor: torch.Tensor, layout: str, sample: int) -> torch.Tensor:
        """One sample's part, as the layer would have it in a batch of one."""
        size = len(tensor) // self.samples
        return tensor[sample * size : (sample + 1) * size]

    def per_sample(self, tokens: torch.Tensor) -> torch.Tensor:
        """What `token_losses` gives, [n, t]: it is by sample already."""
        return tokens

    def alone(self, batch: Batch, sample: int) -> dict[str, torch.Tensor]:
        """A batch of one sample."""
        return {name: tensor[sample : sample + 1] for name, tensor in batch.items()}


class Packed:
    """n samples one after the other in a single row, `lengths` [n] tokens each."""

    tokens, packed = (), True

    def __init__(self, lengths: list[int], device: torch.device) -> None:
        self.samples, self.total, self.longest = len(lengths), sum(lengths), max(lengths)
        self.lengths = torch.tensor(lengths, device=device)
        self.starts = self.lengths.cumsum(0) - self.lengths
        within = torch.arange(self.longest, device=device)
        self._inside = within < self.lengths[:, None]
        self._places = (self.starts[:, None] + within) * self._inside

    def layout(self, output: torch.Tensor) -> str | None:
        """ "row" [1, total, ...] or "flat" [total, width]; None where two axes might be the tokens, or none."""
        if output.ndim == 2:
            return "flat" if output.shape[0] == self.total else None
        inner = list(output.shape[1:-1])
        return "row" if output.shape[0] == 1 and inner.count(self.total) == 1 and inner[0] == self.total else None

    def split(self, tensor: torch.Tensor, layout: str) -> torch.Tensor:
        """[n, longest, ...]: every segment, then zeros."""
        tokens = tensor if layout == "flat" else tensor[0]
        inside = self._inside.reshape(*self._inside.shape, *[1] * (tokens.ndim - 1))
        return tokens[self._places] * inside

    def cut(self, tensor: torch.Tensor, layout: str, sample: int) -> torch.Tensor:
        """One sample's part, as the layer would have it in a batch of one."""
        part = slice(start := int(self.starts[sample]), start + int(self.lengths[sample]))
        return tensor[part] if layout == "flat" else tensor[:, part]

    def per_sample(self, tokens: torch.Tensor) -> torch.Tensor:
        """[1, total - 1], of the labels after the first, as [n, longest - 1]: no segment predicts another's first."""
        return self.split(F.pad(tokens, (1, 0)), "row")[:, 1:]

    def alone(self, batch: Batch, sample: int) -> dict[str, torch.Tensor]:
        """A padded batch of one sample."""
        start, length = int(self.starts[sample]), int(self.lengths[sample])
        cut = {name: batch[name][:, start : start + length] for name in ("input_ids", "labels")}
        return {**cut, "attention_mask": torch.ones_like(cut["input_ids"])}


Rows = Padded | Packed


def laid_out(batch: Batch, encodes: bool = False) -> tuple[Batch, Rows]:
    """What the model is to be given, and how its samples lie.

    A batch is packed if it has "cu_seqlens" [n + 1], or "position_ids" [1, total] that start at 0 again and no
    attention_mask. It goes to the model without a mask: then transformers' own masks keep the samples apart.

    Raises:
        ValueError: a packed batch that is not one row of samples, has padding, or is for an encoder-decoder.
    """
    shape = batch["input_ids"].shape
    lengths = _lengths(batch)
    if lengths is None:
        names = ("input_ids", "labels", "decoder_input_ids") if encodes else ("input_ids",)
        return batch, Padded(shape[0], tuple(batch[n].shape[1] for n in names if n in batch and batch[n].ndim > 1))
    if encodes or shape[0] != 1 or sum(lengths) != shape[1] or min(lengths) < 1 or batch["labels"].shape != shape:
        raise ValueError(f"a packed batch is one row of samples for a decoder; got {list(shape)} for lengths {lengths}")
    if not batch.get("attention_mask", torch.ones(1)).all():
        raise ValueError("a packed batch has no padding: cut it off, or give padded rows")
    positions = torch.cat([torch.arange(length) for length in lengths])[None].to(batch["input_ids"].device)
    given = {"input_ids": batch["input_ids"], "labels": batch["labels"], "position_ids": positions}
    return given, Packed(lengths, batch["input_ids"].device)


def _lengths(batch: Batch) -> list[int] | None:
    """Of a packed batch, the tokens of each sample."""
    if "cu_seqlens" in batch:
        return batch["cu_seqlens"].flatten().diff().tolist()
    positions = batch.get("position_ids")
    if positions is None or positions.shape[0] != 1 or "attention_mask" in batch:
        return None
    starts = (positions[0] == 0).nonzero().flatten().tolist()
    if len(starts) < 2:
        return None
    lengths = [end - start for start, end in zip(starts, [*starts[1:], positions.shape[1]], strict=True)]
    counted = [position for length in lengths for position in range(length)]
    return lengths if positions[0].tolist() == counted else None
