"""A run's directory: which stages are done, and that what lies there belongs to this recipe (DESIGN §5)."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gradex_fast.claims import claimed
from gradex_fast.errors import GradexError
from gradex_fast.files import checksum, read_json, write_atomically, write_json
from gradex_fast.recipe import Recipe
from gradex_fast.types import Corpus

_LOCKED = ("model", "train", "meta", "sketch")
"""Sections that decide the meta-model and the sketches; others may change between calls."""

_FREE = ("sketch.memory", "model.device_map", "model.gradient_checkpointing", "train.report_to")
"""Of those, what changes no more than a rounding: how many rows share a pass, where layers lie, what is recomputed."""

_SINCE = {
    "sketch.distribution": "gaussian",
    "meta.training": "all",
    "meta.sam": 0.0,
    "meta.patience": None,
    "meta.every": 50,
    "meta.adapter": None,
    "model.like": None,
    "model.adapter_dtype": "float32",
    "model.quantization": None,
    "train.packing": False,
    "train.packed_tokens": 2048,
}
"""Locked fields that older runs do not name, and what these runs had."""

_FOLDERS = (".locks", "meta", "sketches", "checkpoints", "compare", "final", "rivals", "diagnosis", "logs", "exports")
_FILES = (
    "config.yaml",
    "clusters.parquet",
    "subsets.parquet",
    "selection.json",
    "selected.jsonl",
    "scores.csv",
    "metrics.json",
    "nonfinite.csv",
    "run.log",
    "report.json",
)
_MADE = (*_FOLDERS, *_FILES, "report.md", "report.html", "manifest.json")
"""What a run makes in its directory; the manifest last, so that what is half cleared is still a run."""

_PACKAGES = ("gradex_fast", "torch", "transformers", "peft", "datasets", "numpy")


class Workspace:
    """The directory ``recipe.output``.

    Args:
        leads: whether this process is the one that notes what is done.

    Raises:
        GradexError: the directory holds something that is not a run.
    """

    def __init__(self, recipe: Recipe, leads: bool = True) -> None:
        self.path, self._leads = Path(recipe.output), leads
        self._manifest = self.path / "manifest.json"
        if self.path.exists() and any(self.path.iterdir()) and not self._is_run():
            raise GradexError(f"{self.path} is not empty and holds no run; choose another output folder")

    def _is_run(self) -> bool:
        """Another process may be about to write the manifest: what lies there is listed before it is read."""
        names = {path.name for path in self.path.iterdir()}
        if self._manifest.exists():
            found = read_json(self._manifest)
            return isinstance(found, dict) and {"identity", "done"} <= found.keys()
        coming = {name for name in names if name.startswith((".manifest.json.", ".config.yaml."))}
        return names - coming <= {"config.yaml", "inputs", ".locks"}

    def claim(self, recipe: Recipe, corpus: Corpus, fingerprint: str, overwrite: bool = False) -> dict[str, Any]:
        """Write the manifest, or check that the one there has the same model, data, training and sketch.

        A manifest in which no stage is done yet binds nothing: what stopped the run may be mended in the recipe.

        Args:
            overwrite: throw away what an earlier run made here (and nothing else), and begin again.

        Returns:
            The identity: every locked field of the recipe, the data's and the model's checksum.

        Raises:
            GradexError: a field differs; the message names it.
        """
        identity = {"seed": recipe.seed, "model": fingerprint, "data": corpus_checksum(corpus)}
        for section in _LOCKED:
            fields = getattr(recipe, section).model_dump(mode="json")
            named = {f"{section}.{name}": value for name, value in fields.items()}
            identity |= {name: value for name, value in named.items() if name not in _FREE}
        if overwrite:
            self._clear()
        with claimed(self.path, "manifest", wait=True):
            found = read_json(self._manifest)
            if found is not None and found["done"]:
                require_same(found["identity"], identity, self._manifest)
            else:
                found = {"identity": identity, "versions": versions(), "device": recipe.device, "done": {}}
                write_json(self._manifest, found)
            write_atomically(self.path / "config.yaml", recipe.dump())
        return identity

    def _clear(self) -> None:
        for path in (self.path / name for name in _MADE):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def done(self, stage: str) -> Any:
        """What `finish` noted of a stage, or None."""
        return (read_json(self._manifest) or {"done": {}})["done"].get(stage)

    def finish(self, stage: str, note: Any) -> None:
        if not self._leads:
            return
        manifest = read_json(self._manifest)
        manifest["done"][stage] = note
        write_json(self._manifest, manifest)


def require_same(before: Mapping[str, Any], now: Mapping[str, Any], place: Path) -> None:
    """Raises GradexError naming the first field in which two identities differ."""
    for field in sorted({*before, *now}):
        was = before.get(field, _SINCE.get(field))
        if was != now.get(field):
            raise GradexError(
                f"{place} was made with {field} = {was!r}, this run has {now.get(field)!r}; "
                "choose another output folder, or begin again with --overwrite"
            )


def lasting(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity without fields that have the value of the time before there were any: what was kept by it then is
    still found when a field is added."""
    return {name: value for name, value in identity.items() if name not in _SINCE or value != _SINCE[name]}


def completed(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity that an older run's manifest says, with the fields that it does not name."""
    return {**_SINCE, **identity}


def corpus_checksum(corpus: Corpus) -> str:
    """Changes with any row's tokens or labels, their order, or a source's name."""
    sources = [*corpus.sources, corpus.train, corpus.validation, corpus.test]
    return checksum(*(part for s in sources for part in (s.name, *(example.digest for example in s.examples))))


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}
