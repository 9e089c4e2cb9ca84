"""A recipe being carried out, and what its stages have made so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gradex_fast.costs import Cost, Passes
from gradex_fast.estimate import SubsetEstimator
from gradex_fast.progress import Reporter
from gradex_fast.ranks import ALONE, Ranks
from gradex_fast.recipe import Recipe
from gradex_fast.types import Corpus, Example, Selection, Sketches, Source
from gradex_fast.workspace import Workspace


@dataclass
class Run:
    """What `pipeline` carries from stage to stage.

    Attributes:
        corpus: the tokenised rows. pad_id: the tokenizer's pad token. identity: what the run's directory is locked to.
        ranks: which process of the job this is.
        whole: the corpus' sources as they were given, once clusters have taken the place of some.
        train, validation: sketches at θ*. estimator: f̂. selection: the choice; `others`: other methods' choices.
        truths: subsets fine-tuned for real from θ*: bool [r, n + always]; `truth`: their validation losses [r].
        final: by name, the figures of models fine-tuned from the pretrained one.
        costs: of the stages carried out or found finished, by the reporter's names.
        stability: Spearman correlation of the ranks with those at other ridges, by the ridge's name.
    """

    recipe: Recipe
    workspace: Workspace
    reporter: Reporter
    device: str
    corpus: Corpus
    pad_id: int
    identity: Mapping[str, Any]
    ranks: Ranks = ALONE
    warnings: list[str] = field(default_factory=list)
    whole: Sequence[Source] = ()
    train: Sketches | None = None
    validation: Sketches | None = None
    estimator: SubsetEstimator | None = None
    truths: np.ndarray | None = None
    truth: np.ndarray | None = None
    selection: Selection | None = None
    others: dict[str, Selection] = field(default_factory=dict)
    stability: dict[str, float] = field(default_factory=dict)
    final: dict[str, dict[str, Any]] = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.workspace.path

    @property
    def passes(self) -> Passes:
        """What passes over rows cost with this recipe's model and sketch."""
        return Passes.of(self.recipe)

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.reporter.warn(message)

    def examples(self, chosen: Sequence[int] | np.ndarray | None = None) -> list[Example]:
        """Rows of the chosen sources (None: of all), in order, then the target's own."""
        sources = self.corpus.sources if chosen is None else [self.corpus.sources[index] for index in chosen]
        return [example for source in (*sources, self.corpus.train) for example in source.examples]
