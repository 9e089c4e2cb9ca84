"""Beyond first order in the sequence's margin: does curvature that it lacks lower the estimate's error?

The sequence margin gives a row of many tokens the curvature of one logistic loss, σ'(h) g gᵀ, of rank 1. Two ways to
more: every supervised token a logistic loss with its own margin and gradient, weight 1/L_i, which has the curvature
(1/L_i) Σ_t σ'(h_it) g_it g_itᵀ, Gauss–Newton's along the true labels; or the true loss at θ* + P x_S / √d, which has
every order of the validation rows (`estimate.mode=lift`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradex_fast import kernels, pipeline
from gradex_fast.diagnose.part import Part, Row
from gradex_fast.diagnose.truth import Truth, agreement
from gradex_fast.diagnose.variants import estimator_of
from gradex_fast.files import checksum
from gradex_fast.state import Run
from gradex_fast.types import UNSUPERVISED, Example, Sketches, Source

FOLDER = "diagnosis/sketches-per-token"


def compare(truth: Truth) -> Part:
    """First order, per token (at multiples of the ridge) and lifted (at the ridge), over the random subsets."""
    run, subsets, rows = truth.run, truth.subsets, []
    plain = estimator_of(_mode(run, "linear"), run.estimator.ridge)
    per_token = TokenEstimator.of(run)
    for factor in run.recipe.diagnose.ridges:
        ridge = run.estimator.ridge * factor
        found = {
            "first order": plain.at_ridge(ridge).estimate(subsets).loss,
            "per token": per_token.estimate(subsets, ridge),
        }
        rows += [_row(kind, ridge, losses, truth) for kind, losses in found.items()]
    lifted = estimator_of(_mode(run, "lift"), run.estimator.ridge).estimate(subsets).loss
    rows.append(_row("lifted", run.estimator.ridge, lifted, truth))
    return Part(rows, rows)


@dataclass(frozen=True)
class TokenEstimator:
    """f̂(S) from a logistic loss for every supervised token.

    Attributes:
        train, valid: sketches of tokens; weights, valid_weights: 1/L of the row that each is of.
        group_ptr: [n + always + 1]; a token's group is its row's.
        divisor: as the run's estimator has it: the tokens of a row weigh 1 together.
    """

    train: Sketches
    weights: np.ndarray
    group_ptr: np.ndarray
    always: tuple[int, ...]
    valid: Sketches
    valid_weights: np.ndarray
    divisor: float | None

    @classmethod
    def of(cls, run: Run) -> TokenEstimator:
        """Sketches every token once: a pass over as many copies of a row as it has supervised tokens."""
        other = sketched(run)
        parts = [*other.corpus.sources, *([other.corpus.train] if run.corpus.train.examples else [])]
        ptr = np.cumsum([0, *(len(source.examples) for source in parts)])
        weights = shares([*run.examples()]), shares(run.corpus.validation.examples)
        validation, made = (other.validation, weights[1]), run.estimator
        return cls(other.train, weights[0], ptr, made.always, *validation, made.divisor)

    def l2(self, ridge: float) -> float:
        """λ = ridge · tr(H₀)/d, H₀ the weighted mean of σ'(h) g̃ g̃ᵀ."""
        falling = np.exp(-np.abs(self.train.margin))
        slope = falling / np.square(1 + falling)
        norms = np.square(self.train.g, dtype=np.float64).sum(1)
        return ridge * float(np.average(slope * norms, weights=self.weights)) / self.train.g.shape[1]

    def estimate(self, subsets: np.ndarray, ridge: float) -> np.ndarray:
        """f̂ [m] of m subsets."""
        rows = (self.train.g, self.train.margin, self.group_ptr)
        solver = kernels.SubsetSolver(*rows, weights=self.weights, divisor=self.divisor)
        x = solver.solve(subsets, l2=self.l2(ridge), always=self.always, tol=1e-8).x
        return np.average(kernels.row_losses(x, self.valid.g, self.valid.margin), axis=1, weights=self.valid_weights)


def sketched(run: Run) -> Run:
    """`by_token`, and its sketches."""
    other = by_token(run)
    pipeline.sketch(other, FOLDER)
    return other


def by_token(run: Run) -> Run:
    """The run with every row in as many copies as it has supervised tokens, each with one of them."""
    corpus = replace(
        run.corpus,
        sources=[_by_token(source) for source in run.corpus.sources],
        **{part: _by_token(getattr(run.corpus, part)) for part in ("train", "validation")},
    )
    return replace(run, corpus=corpus, identity={**run.identity, "rows": "one for each supervised token"})


def copies(example: Example) -> Iterator[Example]:
    """One for each supervised token."""
    for place in np.flatnonzero(example.labels != UNSUPERVISED):
        labels = np.full_like(example.labels, UNSUPERVISED)
        labels[place] = example.labels[place]
        digest = checksum(example.digest, str(place))[:16]
        yield replace(example, id=f"{example.id} token {place}", labels=labels, digest=digest)


def shares(examples: Sequence[Example]) -> np.ndarray:
    """1/L of the row that each of `copies` is of: float64 [tokens]."""
    counts = np.array([example.supervised for example in examples])
    return np.repeat(1 / counts, counts)


def _by_token(source: Source) -> Source:
    return replace(source, examples=[copy for example in source.examples for copy in copies(example)])


def _mode(run: Run, mode: str) -> Run:
    estimate = run.recipe.estimate.model_copy(update={"mode": mode})
    return replace(run, recipe=run.recipe.model_copy(update={"estimate": estimate}))


def _row(kind: str, ridge: float, losses: np.ndarray, truth: Truth) -> Row:
    return {"estimate": kind, "ridge": ridge, **agreement(losses, truth)}
