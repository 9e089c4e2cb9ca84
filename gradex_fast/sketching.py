"""The sketch stage: every shard of a run's sketches once, by any number of processes, which never speak."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from gradex_fast.accounts import SketchAccount
from gradex_fast.claims import claimed
from gradex_fast.files import checksum, file_checksum
from gradex_fast.fitting import Budget
from gradex_fast.memory import available
from gradex_fast.model import load_model
from gradex_fast.progress import Stage
from gradex_fast.sketch import Sketcher, sketch_examples
from gradex_fast.state import Run
from gradex_fast.store import SketchStore
from gradex_fast.types import Sketches

Shard = tuple[str, range]
"""A split's name, and rows of it."""

_LOOK = 1.0
"""Seconds between two looks at what other processes are at."""


class Sketching:
    """The gradient of every training and validation sample at θ*, projected; kept below the run's directory."""

    def __init__(self, run: Run, folder: str = "sketches") -> None:
        self.store = store_of(run.path, run.identity, run.recipe.sketch.shard_rows, folder)
        self.splits = {"train": run.examples(), "validation": run.corpus.validation.examples}
        self.account = SketchAccount(run, folder)
        self._run = run

    def missing(self) -> list[Shard]:
        """What is not there whole, whoever is to make it."""
        rows = {split: self.store.missing(split, len(examples)) for split, examples in self.splits.items()}
        return [(split, shard) for split, shards in rows.items() for shard in shards]

    def fill(self) -> None:
        """Until nothing of this process's share is missing: what others are at is left to them, unless they die."""
        wanted = self._share(self.missing())
        with self._run.reporter.stage("sketch", sum(len(rows) for _, rows in wanted), "rows") as stage:
            while wanted:
                left = [shard for shard in wanted if not self._settled(shard, stage)]
                if len(left) == len(wanted):
                    time.sleep(_LOOK)
                wanted = left

    def read(self) -> tuple[Sketches, ...]:
        """Of the training rows, and of the validation rows."""
        return tuple(self.store.read(split, len(examples)) for split, examples in self.splits.items())

    def _share(self, missing: list[Shard]) -> list[Shard]:
        """All, but each process begins elsewhere; or with ``--shard`` every count-th of all shards."""
        ranks = self._run.ranks
        if ranks.shard:
            every = [(split, rows) for split, all in self.splits.items() for rows in self.store.shards(len(all))]
            own = every[ranks.index :: ranks.count]
            return [shard for shard in missing if shard in own]
        begin = len(missing) * ranks.index // ranks.count
        return missing[begin:] + missing[:begin]

    def _settled(self, shard: Shard, stage: Stage) -> bool:
        """Whether the shard is there now, made here or elsewhere."""
        with claimed(self.store.folder, self.store.path(*shard).stem) as mine:
            if self.store.whole(*shard):
                stage.advance(len(shard[1]))
            elif mine:
                self._make(shard, stage)
            else:
                return False
        return True

    def _make(self, shard: Shard, stage: Stage) -> None:
        recipe, (split, rows) = self._run.recipe.sketch, shard
        begin, examples = time.monotonic(), [self.splits[split][row] for row in rows]
        options = {"pad_id": self._run.pad_id, "batch_tokens": self._budget, "stage": stage}
        found = sketch_examples(self._sketcher, examples, skip_nonfinite=recipe.on_nonfinite == "skip", **options)
        self.store.write(split, rows, found, [example.digest for example in examples])
        self.account.add(len(rows), time.monotonic() - begin)

    @cached_property
    def _sketcher(self) -> Sketcher:
        return sketcher_of(self._run)

    @cached_property
    def _budget(self) -> Budget:
        """Asked for when the model is in its place."""
        recipe, _ = self._run.recipe.sketch, self._sketcher
        memory = recipe.memory and int(recipe.memory * 2**30)
        return Budget(recipe.batch_tokens, memory or available(torch.device(self._run.device)))


def store_of(path: Path, identity: Mapping[str, Any], shard_rows: int, folder: str = "sketches") -> SketchStore:
    """Of the run in folder `path`: what its directory is locked to, and the meta-model that lies there."""
    weights = checksum(*map(file_checksum, sorted((path / "meta").glob("*.safetensors"))))
    return SketchStore(path / folder, {**identity, "meta": weights}, shard_rows)


def sketcher_of(run: Run) -> Sketcher:
    """Of the run's model at θ*."""
    recipe = run.recipe.sketch
    model = load_model(run.recipe.model, run.recipe.seed, run.device, trained=run.path / "meta")
    options = {key: getattr(recipe, key) for key in ("dim", "distribution", "margin", "parameters")}
    return Sketcher(model, seed=run.recipe.seed, **options)
