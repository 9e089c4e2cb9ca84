"""Sketches and subsets to f̂(S), intervals and the ridge (DESIGN §2, Estimate). Knows not how subsets were drawn."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from gradex_fast import kernels
from gradex_fast.metrics import leave_one_out, line, spearman
from gradex_fast.moves import EveryMove, Moves, ScreenedMoves
from gradex_fast.tally import Tally
from gradex_fast.types import Estimates, Sketches, row_ranges

RIDGES = tuple(float(ridge) for ridge in np.logspace(-2, 3, 11))
"""What `ridge: auto` chooses from."""

TYPICAL = 0.75
"""Share of all rows in the subsets for which the ridge was found (DESIGN §2)."""

STABLE = 0.8
"""A Spearman correlation of the ranks at ridge × 10 or ÷ 10 under this deserves a loud warning."""

_log = logging.getLogger(__name__)

_CHUNK = 1 << 24
"""Entries of one [subsets, rows] block of validation losses: 128 MiB."""


@dataclass(frozen=True)
class Calibration:
    """f ≈ intercept + slope · f̂, fitted to r really fine-tuned subsets.

    Attributes:
        slope: > 0; 1 where the anchors contradict the estimate, and only the intercept was fitted.
        error: root mean square of the leave-one-out residuals, in nats.
        contradicted: the best slope was not positive.
    """

    intercept: float
    slope: float
    error: float
    contradicted: bool


class SubsetEstimator:
    """Predicts the fine-tuned validation loss of any subset of groups.

    Args:
        train: sketches of N training samples. groups: int [N], the group 0 ... n - 1 of each. Rows that are sorted by
            group are not copied, and may be a memory map.
        valid: sketches of the v validation samples.
        ridge: dimensionless; λ = ridge · tr(H₀)/d, H₀ = mean σ'(h_i) g̃_i g̃_iᵀ.
        always: groups that are in every subset (the target's own training rows).
        count: n; None is the highest group and one. A group may have no rows.
        divisor: of Σ losses in F_S. "typical": TYPICAL · N for all subsets, as if x had one prior and every row were
            evidence (a logistic regression with scikit-learn's C, and the paper's): on fewer rows x goes less far.
            "own": the subset's own rows, so that λ weighs as much in all.
        evaluate: x [d] -> true losses [v] at θ* + P x / √d: the `lift` estimate (Algorithm 1, line 10) in
            place of the linear one.
        bootstrap: resamplings of the validation rows for the intervals, drawn from `seed`.
        tol: of the regressions, see `kernels.SubsetSolver.solve`; the default tells subsets apart to 0.1 % of their
            distance.

    Attributes:
        divisor: of the sum of losses in every subset's F_S; None is the subset's own number of rows.
        tally: of its arithmetic, and that of all estimators made from it.

    Raises:
        ValueError: the sketches' dimensions differ, or there is no training or validation row.
    """

    def __init__(
        self,
        train: Sketches,
        groups: np.ndarray,
        valid: Sketches,
        *,
        ridge: float = 10.0,
        always: Sequence[int] | None = None,
        count: int | None = None,
        divisor: Literal["typical", "own"] = "typical",
        evaluate: Callable[[np.ndarray], np.ndarray] | None = None,
        bootstrap: int = 200,
        seed: int = 0,
        tol: float = 1e-8,
        threads: int | None = None,
    ) -> None:
        groups = np.asarray(groups, np.int64)
        if not len(train) or not len(valid) or len(groups) != len(train):
            raise ValueError(f"{len(train)} training rows, {len(groups)} group numbers, {len(valid)} validation rows")
        if train.g.shape[1] != valid.g.shape[1]:
            raise ValueError(f"sketch dimensions differ: {train.g.shape[1]} and {valid.g.shape[1]}")
        if (np.diff(groups) < 0).any():
            order = np.argsort(groups, kind="stable")
            train, groups = train[order], groups[order]
        self.train, self.valid, self.ridge = train, valid, ridge
        self.groups = count or int(groups.max()) + 1
        self.group_ptr = np.searchsorted(groups, np.arange(self.groups + 1))
        self.always = tuple(always or ())
        self.calibration: Calibration | None = None
        self.tally = Tally()
        self._evaluate, self._tol, self._threads = evaluate, tol, threads
        self.divisor = TYPICAL * len(train) if divisor == "typical" else None
        options = {"divisor": self.divisor, "threads": threads}
        self._solver = kernels.SubsetSolver(self.train.g, self.train.margin, self.group_ptr, **options)
        even = np.full(len(valid), 1 / len(valid))
        self.resampling = np.random.default_rng(seed).multinomial(len(valid), even, bootstrap) / len(valid)

    @property
    def candidates(self) -> np.ndarray:
        """Groups that may be chosen: all but `always`."""
        return np.setdiff1d(np.arange(self.groups), self.always)

    @property
    def l2(self) -> float:
        """λ = ridge · tr(H₀)/d."""
        return self.ridge * self._trace / self.train.g.shape[1]

    @cached_property
    def _trace(self) -> float:
        """tr(H₀)."""
        falling = np.exp(-np.abs(self.train.margin))  # never overflows
        slope = falling / np.square(1 + falling)  # σ'(h)
        g = self.train.g
        squares = [np.square(g[rows], dtype=np.float64).sum(1) for rows in row_ranges(len(g))]
        return float(np.mean(slope * np.concatenate(squares)))

    def at_ridge(self, ridge: float) -> SubsetEstimator:
        """The same estimator with another ridge and no calibration."""
        other = copy.copy(self)
        other.ridge, other.calibration = ridge, None
        return other

    def solve(
        self, subsets: np.ndarray | Sequence[Sequence[int]], progress: Callable[[int], object] | None = None
    ) -> kernels.Solutions:
        """x_S and the solver's account of m subsets; progress is called with how many are done."""
        options = {"always": self.always, "tol": self._tol, "threads": self._threads, "progress": progress}
        found = self._solver.solve(subsets, l2=self.l2, **options)
        self._tell(subsets, found)
        unsolved = found.status[~np.isin(found.status, (kernels.Status.CONVERGED, kernels.Status.EMPTY))]
        if len(unsolved):
            worst = kernels.Status(int(unsolved.max())).name.lower()
            _log.warning("%d of %d subset regressions ended early (%s)", len(unsolved), len(found.status), worst)
        return found

    def rows(self, x: np.ndarray) -> np.ndarray:
        """Uncalibrated loss of every validation row at each x [m, d]: [m, v]."""
        if self._evaluate is not None:
            self.tally.lifted += len(x)
            return np.stack([self._evaluate(one) for one in x])
        self.tally.judged(len(x), *self.valid.g.shape, len(self.resampling))
        return kernels.row_losses(x, self.valid.g, self.valid.margin, threads=self._threads)

    def estimate(
        self, subsets: np.ndarray | Sequence[Sequence[int]], progress: Callable[[int], object] | None = None
    ) -> Estimates:
        """f̂ of m subsets (bool [m, n], or m lists of groups) with 95 % intervals.

        The interval is a bootstrap over validation rows; after `calibrate` it includes the leave-one-out error.
        """
        return self.estimates_at(self.solve(subsets, progress).x)

    def estimates_at(self, x: np.ndarray) -> Estimates:
        """`estimate` of m subsets whose minimisers x [m, d] are known."""
        step = max(1, _CHUNK // len(self.valid))
        parts = [self._summarise(self.rows(x[start : start + step])) for start in range(0, len(x), step)]
        loss, low, high = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0))
        return Estimates(loss, low, high, x)

    def moves(self) -> Moves:
        """What greedy selection searches with: the fast way, unless f̂ is not linear or the data do not allow it."""
        finite = all(part.finite.all() for part in (self.train, self.valid))
        if self._evaluate is not None or not finite or self.train.g.shape[1] > kernels.NeighbourSearch.LARGEST_DIM:
            return EveryMove(self)
        validation = self.valid.g, self.valid.margin
        search = kernels.NeighbourSearch(self._solver, *validation, l2=self.l2, threads=self._threads)
        return ScreenedMoves(self, search)

    def rank_stability(self, subsets: np.ndarray) -> dict[str, float]:
        """Spearman correlation of f̂ with itself at ridge × 10 and ÷ 10; see `STABLE`."""
        here = self.at_ridge(self.ridge).estimate(subsets).loss
        others = {"ridge x 10": self.ridge * 10, "ridge / 10": self.ridge / 10}
        return {name: spearman(here, self.at_ridge(ridge).estimate(subsets).loss) for name, ridge in others.items()}

    def calibrated(
        self, subsets: np.ndarray, truth: np.ndarray, ridges: Sequence[float] | None = None
    ) -> SubsetEstimator:
        """The same estimator fitted to the true losses of r ≥ 2 subsets.

        Args:
            ridges: the ridge of least leave-one-out error among these is taken; None keeps this one.

        Raises:
            ValueError: fewer than two subsets.
        """
        if len(truth) < 2:
            raise ValueError(f"calibration needs two subsets or more, got {len(truth)}")
        fits = []
        for ridge in ridges or (self.ridge,):
            other = self.at_ridge(ridge)
            other.calibration = _calibration(other.estimate(subsets).loss, np.asarray(truth))
            fits.append(other)
        return min(fits, key=lambda other: other.calibration.error)

    def _tell(self, subsets: np.ndarray | Sequence[Sequence[int]], found: kernels.Solutions) -> None:
        """The tally of a solve."""
        masks = kernels.subset_masks(subsets, self.groups) | kernels.subset_masks([self.always], self.groups)
        self.tally.solved(masks @ np.diff(self.group_ptr), found.iterations, *self.train.g.shape)

    def _summarise(self, rows: np.ndarray) -> np.ndarray:
        """[3, m]: the mean over rows, and the interval's two ends."""
        loss = rows.mean(1, dtype=np.float64)
        low, high = np.quantile(rows @ self.resampling.T.astype(rows.dtype), (0.025, 0.975), axis=1)
        fit = self.calibration
        if fit is None:
            return np.stack([loss, low, high])
        middle = fit.intercept + fit.slope * loss
        below, above = (np.hypot(fit.slope * side, 1.96 * fit.error) for side in (loss - low, high - loss))
        return np.stack([middle, middle - below, middle + above])


def _calibration(estimate: np.ndarray, truth: np.ndarray) -> Calibration:
    intercept, slope = line(estimate, truth)
    if slope > 0:
        return Calibration(intercept, slope, _rms(leave_one_out(estimate, truth) - truth), False)
    offsets = truth - estimate
    left_out = (offsets - offsets.mean()) * len(truth) / (len(truth) - 1)  # against the mean of the others
    return Calibration(float(offsets.mean()), 1.0, _rms(left_out), True)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
