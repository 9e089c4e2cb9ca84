"""A run's directory: which stages are done, and that what lies there belongs to this recipe (DESIGN §5)."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gradex_fast.errors import GradexError
from gradex_fast.files import checksum, read_json, write_atomically, write_json
from gradex_fast.recipe import Recipe
from gradex_fast.types import Corpus

_LOCKED = ("model", "train", "sketch")
"""Sections that decide the meta-model and the sketches; others may change between calls."""

_PACKAGES = ("gradex_fast", "torch", "transformers", "peft", "datasets", "numpy")


class Workspace:
    """The directory ``recipe.output``.

    Args:
        overwrite: empty a directory that an earlier run made, and begin again.

    Raises:
        GradexError: the directory holds something that is not a run.
    """

    def __init__(self, recipe: Recipe, overwrite: bool = False) -> None:
        self.path = Path(recipe.output)
        self._manifest = self.path / "manifest.json"
        if self.path.exists() and any(self.path.iterdir()) and not self._is_run():
            raise GradexError(f"{self.path} is not empty and holds no run; choose another output folder")
        if overwrite and self._manifest.exists():
            shutil.rmtree(self.path)

    def _is_run(self) -> bool:
        names = {path.name for path in self.path.iterdir()}
        return "manifest.json" in names or names <= {"config.yaml", "inputs"}

    def claim(self, recipe: Recipe, corpus: Corpus, fingerprint: str) -> dict[str, Any]:
        """Write the manifest, or check that the one there has the same model, data, training and sketch.

        Returns:
            The identity: every locked field of the recipe, the data's and the model's checksum.

        Raises:
            GradexError: a field differs; the message names it.
        """
        identity = {"seed": recipe.seed, "model": fingerprint, "data": corpus_checksum(corpus)}
        for section in _LOCKED:
            fields = getattr(recipe, section).model_dump(mode="json")
            identity |= {f"{section}.{name}": value for name, value in fields.items()}
        found = read_json(self._manifest)
        if found is not None:
            require_same(found["identity"], identity, self._manifest)
        else:
            found = {"identity": identity, "versions": versions(), "device": recipe.device, "done": {}}
            write_json(self._manifest, found)
        write_atomically(self.path / "config.yaml", recipe.dump())
        return identity

    def done(self, stage: str) -> Any:
        """What `finish` noted of a stage, or None."""
        return (read_json(self._manifest) or {"done": {}})["done"].get(stage)

    def finish(self, stage: str, note: Any) -> None:
        manifest = read_json(self._manifest)
        manifest["done"][stage] = note
        write_json(self._manifest, manifest)


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], place: Path) -> None:
    """Raises GradexError naming the first field in which two identities differ."""
    for field in sorted({*before, *now}):
        if before.get(field) != now.get(field):
            raise GradexError(
                f"{place} was made with {field} = {before.get(field)!r}, this run has {now.get(field)!r}; "
                "choose another output folder, or begin again with --overwrite"
            )


def corpus_checksum(corpus: Corpus) -> str:
    """Changes with any row's tokens or labels, their order, or a source's name."""
    sources = [*corpus.sources, corpus.train, corpus.validation, corpus.test]
    return checksum(*(part for s in sources for part in (s.name, *(example.digest for example in s.examples))))


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}
