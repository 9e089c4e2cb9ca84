"""A greedy search's way from set to set, and what lies on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from gradex_fast.constraints import Constraints
from gradex_fast.moves import EveryMove, Step, toggled
from gradex_fast.select.estimator import Estimator, in_tie_order, joined, mask_of
from gradex_fast.types import Selection


class Walk:
    """Sets of sources, each one source away from the one before; the first holds `members`.

    Attributes:
        candidates: in the order in which ties are broken. masks: bool [n] of each set so far; losses: their f̂,
            infinite where there is nothing to train on. path: the steps, one fewer than sets. least: the lowest f̂ of a
            set of so many sources.
    """

    def __init__(
        self,
        estimator: Estimator,
        members: Sequence[int] | np.ndarray,
        constraints: Constraints,
        seed: int,
        progress: Callable[[int], object] | None,
    ) -> None:
        mask = mask_of(estimator, members)
        self.constraints, self.candidates = constraints, in_tie_order(estimator.candidates, seed)
        self._estimator, self._progress = estimator, progress
        self._search = estimator.moves() if hasattr(estimator, "moves") else EveryMove(estimator)
        self._tried, self._found = [mask[None]], [estimator.estimate(mask[None])]
        first = float(self._found[0].loss[0]) if mask.any() else np.inf  # nothing to train on is no alternative
        self.masks, self.losses, self.path = [mask], [first], []
        self.least, self._visited = defaultdict(lambda: np.inf, {self.size(): first}), {mask.tobytes()}

    @property
    def mask(self) -> np.ndarray:
        return self.masks[-1]

    @property
    def fewest(self) -> int:
        """Nothing to train on is no alternative: without an `always` group one source is kept."""
        return max(len(self.constraints.include), 0 if len(self._estimator.always) else 1)

    def size(self, index: int = -1) -> int:
        """How many sources a set holds."""
        return int(self.masks[index][self.candidates].sum())

    def members(self, index: int = -1) -> np.ndarray:
        return np.sort(self.candidates[self.masks[index][self.candidates]])

    def best(self, moves: np.ndarray) -> Step:
        """The move of lowest f̂, in the order of ties the first of equals."""
        step = self._search.best(self.mask, moves, self.losses[-1])
        self._tried.append(step.subsets)
        self._found.append(step.estimates)
        return step

    def take(self, source: int, loss: float) -> None:
        """Go to the set that differs by `source`."""
        added = not self.mask[source]
        self.masks.append(self._other(source))
        self.losses.append(loss)
        self.least[self.size()] = min(self.least[self.size()], loss)
        self._visited.add(self.mask.tobytes())
        self.path.append({"source": int(source), "loss": loss, "added": added})
        if self._progress:
            self._progress(len(self.path))

    def visited(self, source: int) -> bool:
        """Whether the set that differs by `source` was gone through before."""
        return self._other(source).tobytes() in self._visited

    def lowest(self, size: int | None = None) -> int:
        """The set of lowest f̂ within the budget, the first of equals; of `size` sources only, where that is given."""
        fit = [self.constraints.fits(self.members(i)) and size in (None, self.size(i)) for i in range(len(self.masks))]
        losses = np.where(fit, self.losses, np.inf)
        return int(np.argmin(losses)) if np.isfinite(losses).any() else fit.index(True)

    def selection(self, chosen: int) -> Selection:
        """The outcome, if the set of that number is the choice."""
        members = tuple(self.members(chosen).tolist())
        details = {"steps": chosen, **self.constraints.account(members)}
        effects = self._marginal_effects(self.masks[chosen])
        return Selection(members, *effects, tuple(self.path), np.concatenate(self._tried), joined(self._found), details)

    def _other(self, source: int) -> np.ndarray:
        return toggled(self.mask, np.array([source]))[0]

    def _marginal_effects(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What each source changes in f̂ at `mask`, with a bootstrap interval over the same validation rows."""
        candidates, scores = self._estimator.candidates, np.full((3, self._estimator.groups), np.nan)
        rows = self._estimator.rows(self._search.solve(mask, candidates))
        sign = np.where(mask[candidates], -1.0, 1.0)[:, None]
        change = sign * (rows[1:] - rows[0])
        scores[0, candidates] = change.mean(1)
        scores[1:, candidates] = np.quantile(change @ self._estimator.resampling.T, (0.025, 0.975), axis=1)
        return scores[0], scores[1], scores[2]
