"""What the stages hand one another: examples, sketches, estimates, selections. No behaviour beyond slicing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

UNSUPERVISED = -100
"""Label of a token that the loss does not see (the convention of torch and transformers)."""


@dataclass(frozen=True)
class Example:
    """One tokenised training or validation row.

    Attributes:
        id: stable name, ``source/row``; the row is its position in the source's file.
        input_ids: int32 [t].
        labels: int32 [t], `UNSUPERVISED` where no loss is taken; for a classifier int32 [1], the class.
        digest: 16 hex digits of the content's BLAKE2b; equal digests mean equal rows.
        row: the row as it was read, for ``selected.jsonl`` and the report.
        cut: tokens that the row had beyond ``max_length``.
    """

    id: str
    input_ids: np.ndarray
    labels: np.ndarray
    digest: str
    row: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    cut: int = 0

    @property
    def supervised(self) -> int:
        """Number of labels that the loss sees (for a classifier 1)."""
        return int((self.labels != UNSUPERVISED).sum())


@dataclass(frozen=True)
class Source:
    """A named set of training rows that is selected or dropped as a whole.

    Attributes:
        truncated: rows longer than ``max_length``, which were cut.
        dropped: rows of which no supervised token was left after the cut.
        overlapping: rows removed because they equal a validation or test row.
        format: what the rows were taken for and where the loss is taken, in words.
    """

    name: str
    examples: Sequence[Example]
    truncated: int = 0
    dropped: int = 0
    overlapping: int = 0
    format: str = ""

    @property
    def tokens(self) -> int:
        return sum(len(example.input_ids) for example in self.examples)


@dataclass(frozen=True)
class Corpus:
    """Everything a run trains and measures on.

    Attributes:
        sources: the n candidates, in the recipe's order; the columns of every subset mask.
        train: the target's own training rows, in every subset (may hold no example).
        validation: rows whose loss f(S) is; never trained on.
        test: rows for the final figures; never trained on, never used to select.
        unassigned: rows left out because their column of groups is null or empty.
    """

    sources: Sequence[Source]
    train: Source
    validation: Source
    test: Source
    unassigned: int = 0

    @property
    def names(self) -> list[str]:
        return [source.name for source in self.sources]


@dataclass(frozen=True)
class Sketches:
    """Projected gradients of n samples at θ*.

    Attributes:
        g: float32 [n, d], row i = Pᵀ ∇h_i / √d.
        margin: float64 [n], h_i.
        loss: float64 [n], ℓ_i, mean negative log-likelihood in nats per supervised token.
    """

    g: np.ndarray
    margin: np.ndarray
    loss: np.ndarray

    def __len__(self) -> int:
        return len(self.margin)

    def __getitem__(self, rows: Any) -> Sketches:
        return Sketches(self.g[rows], self.margin[rows], self.loss[rows])

    @property
    def finite(self) -> np.ndarray:
        """bool [n], the rows of which every number is finite."""
        g = [np.isfinite(self.g[rows]).all(1) for rows in row_ranges(len(self))]
        return np.concatenate([*g, np.zeros(0, bool)]) & np.isfinite(self.margin) & np.isfinite(self.loss)


def row_ranges(rows: int, size: int = 1 << 12) -> list[slice]:
    """Row ranges so small that what is worked out for one of them takes no memory to speak of."""
    return [slice(start, start + size) for start in range(0, rows, size)]


@dataclass(frozen=True)
class Estimates:
    """f̂ of m subsets.

    Attributes:
        loss: float64 [m], estimated validation loss in nats.
        low, high: float64 [m], 95 % interval of `loss`.
        x: float64 [m, d], the minimisers x_S.
    """

    loss: np.ndarray
    low: np.ndarray
    high: np.ndarray
    x: np.ndarray

    def __len__(self) -> int:
        return len(self.loss)


@dataclass(frozen=True)
class Selection:
    """The chosen sources and why.

    Attributes:
        chosen: indices of the chosen sources, ascending.
        scores: float64 [n], lower is better; `gradex_fast.select` says what each method's is.
        low, high: float64 [n], 95 % interval of `scores`.
        path: one entry per step, ``{"source": i, "loss": f̂, "added": bool}``; empty for the ensemble.
        subsets: bool [m, n], the subsets whose f̂ `estimates` holds: all that were drawn, or those of the path.
        details: what else the method has to say, as JSON values, sources by index. Greedy: ``steps`` of the path that
            lead to the choice. Ensemble: ``fraction``, ``sampling``, ``threshold`` (γ), ``convergence``,
            ``cross_validation``, ``sweep``. Both: ``cost`` where there is a budget.
    """

    chosen: tuple[int, ...]
    scores: np.ndarray
    low: np.ndarray
    high: np.ndarray
    path: tuple[Mapping[str, Any], ...]
    subsets: np.ndarray
    estimates: Estimates
    details: Mapping[str, Any] = field(default_factory=dict)
