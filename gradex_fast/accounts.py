"""The account of a run: what each of its stages cost, whichever process carried it out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gradex_fast.costs import NOTHING, Cost, together
from gradex_fast.files import read_json, write_json
from gradex_fast.state import Run
from gradex_fast.tally import Tally

FINAL = ("train final", "train compare/")
"""How the names of trainings begin that come after the choice."""


class SketchAccount:
    """Rows and seconds of one folder of sketches, noted shard by shard: they outlive an interruption.

    Every process of a job has a file of its own; the seconds are those of all together.
    """

    def __init__(self, run: Run, folder: str) -> None:
        self._run, self._folder = run, run.path / folder / "account"

    def add(self, rows: int, seconds: float) -> None:
        place = self._folder / f"{self._run.ranks.index}.json"
        known = read_json(place) or {"rows": 0, "seconds": 0.0}
        write_json(place, {"rows": known["rows"] + rows, "seconds": known["seconds"] + seconds})

    def cost(self) -> Cost:
        """Of one pass over all rows; if some were sketched twice, at the mean time of a row."""
        rows = [*self._run.examples(), *self._run.corpus.validation.examples]
        notes = [note for path in self._folder.glob("*.json") if (note := read_json(path))]
        done, seconds = (sum(note[key] for note in notes) for key in ("rows", "seconds"))
        return self._run.passes.sketch(rows).taking(seconds * len(rows) / done if done else math.nan)


def searched(run: Run, before: Tally | None = None) -> Cost:
    """What the run's estimator has done, since `before` or ever, without the time."""
    spent = run.estimator.tally.since(before or Tally())
    return run.passes.forward(run.corpus.validation.examples).times(spent.lifted) + Cost(own_flops=spent.flops)


def shared_costs(run: Run) -> dict[str, Cost]:
    """Of the stages that GRADEX and some rivals share: the meta-training, the sketches, and the anchors."""
    count = 0 if run.truths is None else len(run.truths)
    anchors = [run.costs[f"train anchor {index + 1}"] for index in range(count)]
    return {"meta": run.costs["train meta"], "sketch": run.costs["sketch"], "estimate": together(anchors)}


def account(run: Run) -> dict[str, Any]:
    """What the report says of the cost, as JSON values.

    ``stages`` by name; ``choice``: of all that led to it, without the trainings after it; ``together``; ``sketch`` and
    ``solver``: FLOPs of their own in it.
    """
    costs = dict(_stages(run))
    choice = [cost for name, cost in costs.items() if not name.startswith(FINAL)]
    return {
        "stages": {name: cost.values() for name, cost in costs.items()},
        "choice": together(choice).values(),
        "together": together(costs.values()).values(),
        "sketch": costs.get("sketch", NOTHING).values()["own_flops"],
        "solver": costs.get("select", NOTHING).own_flops,
    }


def _stages(run: Run) -> Iterator[tuple[str, Cost]]:
    for name, seconds in run.reporter.seconds.items():
        yield name, run.costs.get(name, NOTHING).taking(seconds)
