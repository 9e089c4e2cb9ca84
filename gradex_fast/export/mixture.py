"""The rows that a finished run chose, read back from its directory and its data files, and proved to be those."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from gradex_fast.clusters import in_clusters
from gradex_fast.data import load_corpus
from gradex_fast.data.files import Row
from gradex_fast.data.formats import Format, format_of
from gradex_fast.data.prompts import Completion
from gradex_fast.data.read import stem
from gradex_fast.data_sections import FileRecipe, GroupedRecipe
from gradex_fast.errors import GradexError
from gradex_fast.files import file_checksum, read_json
from gradex_fast.finetuning import data_checksum
from gradex_fast.model import load_tokenizer
from gradex_fast.recipe import Recipe
from gradex_fast.types import Corpus, Example, Source
from gradex_fast.workspace import corpus_checksum


@dataclass(frozen=True)
class Piece:
    """Rows of one source and one kind: most sources are one piece, a cluster of unlike rows several.

    Attributes:
        source: its name; ``target-train`` for the target's own rows.
        kind: what the rows are, see `Format`.
        columns: that hold it.
        rows: as they were read. ids: ``source/row`` of each, by the file that it came from.
        completions: prompt and completion of each, templates filled in; None for conversations and labelled.
        cut: how many of them the run cut at ``data.max_length``.
    """

    source: str
    kind: str
    columns: tuple[str | None, ...]
    rows: Sequence[Mapping[str, Any]]
    ids: Sequence[str]
    completions: Sequence[Completion] | None
    cut: int


@dataclass(frozen=True)
class Mixture:
    """Everything that the run's final model was, or would be, trained on.

    Attributes:
        folder: the run's.
        pieces: in the order of the run's training rows: the chosen sources, then the target's own.
        eos: the tokenizer's end of sequence, "" where it has none.
    """

    folder: Path
    recipe: Recipe
    pieces: Sequence[Piece]
    eos: str

    @property
    def rows(self) -> int:
        return sum(len(piece.rows) for piece in self.pieces)

    @property
    def cut(self) -> int:
        """Rows that the run cut."""
        return sum(piece.cut for piece in self.pieces)


def read_mixture(place: Path, overrides: Sequence[str] = ()) -> Mixture:
    """The chosen mixture of the run in folder `place`, or of the recipe at `place`.

    Args:
        overrides: such as ``data.folder=...`` where the data files were moved.

    Raises:
        GradexError: no sources were chosen yet, or the rows are no longer those that the run saw.
    """
    folder, recipe = opened(place, overrides)
    selection, manifest = read_json(folder / "selection.json"), read_json(folder / "manifest.json")
    if not (selection and manifest):
        raise GradexError(f"{folder} has no selection yet; finish it with: gradex-fast run {place}")
    tokenizer = load_tokenizer(recipe.model)
    corpus = read_corpus(folder, recipe, tokenizer, manifest)
    sources = _chosen(_as_sources(folder, recipe, corpus, manifest), selection["chosen"], folder)
    parts = [*sources, corpus.train] if corpus.train.examples else sources
    examples = [example for source in parts for example in source.examples]
    final = manifest["done"].get("final")
    if final and final["data"] != data_checksum(examples, recipe.train):
        raise GradexError(f"{folder / 'final'} was trained on other rows than selection.json names; run again")
    if not examples:
        raise GradexError(f"{folder}: no source was chosen and the target has no training rows; nothing to export")
    pieces = [piece for source in parts for piece in _pieces(source, recipe, tokenizer)]
    return Mixture(folder, recipe, pieces, tokenizer.eos_token or "")


def opened(place: Path, overrides: Sequence[str]) -> tuple[Path, Recipe]:
    """The folder of a run, and its recipe as it was carried out, from that folder or from a recipe.

    Raises:
        GradexError: there is no run.
    """
    folder = place if place.is_dir() else Path(Recipe.load(place, tuple(overrides)).output)
    config = folder / "config.yaml"
    if not config.is_file():
        raise GradexError(f"{folder} is no run: there is no {config.name}; name a run's folder or its recipe")
    return folder, Recipe.load(config, tuple(overrides))


def read_corpus(folder: Path, recipe: Recipe, tokenizer: Any, manifest: Mapping[str, Any]) -> Corpus:
    """The rows of a run, read again.

    Raises:
        GradexError: they are no longer those that the run saw.
    """
    corpus = load_corpus(recipe, tokenizer)
    if corpus_checksum(corpus) != manifest["identity"]["data"]:
        raise GradexError(
            f"the rows that {recipe.data.folder} gives now are not those of the run in {folder}; put the data files, "
            "the tokenizer and data.max_length back as they were, or run again"
        )
    return corpus


def _as_sources(folder: Path, recipe: Recipe, corpus: Corpus, manifest: Mapping[str, Any]) -> Corpus:
    """The corpus with the run's clusters in it, where it has some."""
    if not recipe.clusters:
        return corpus
    path, note = folder / "clusters.parquet", manifest["done"].get("clusters")
    if not (note and path.is_file() and file_checksum(path) == note["checksum"]):
        raise GradexError(f"{path} is missing or not what the run wrote; make it again with: gradex-fast cluster")
    return in_clusters(corpus, parquet.read_table(path)["cluster"].to_pylist(), recipe.clusters)[0]


def _chosen(corpus: Corpus, names: Sequence[str], folder: Path) -> list[Source]:
    known = {source.name: source for source in corpus.sources}
    if unknown := [name for name in names if name not in known]:
        raise GradexError(f"{folder / 'selection.json'} names {unknown[0]!r}, which is no source of the run; run again")
    return [known[name] for name in names]


def _pieces(source: Source, recipe: Recipe, tokenizer: Any) -> Iterator[Piece]:
    """One for every form that the source's rows have; a cluster's come from several files."""
    known: dict[tuple, Format] = {}
    groups: dict[tuple, tuple[Format, list[Row], list[int]]] = {}
    for example in source.examples:
        file, row = _file_of(example, recipe), Row(example.id, dict(example.row))
        columns = (file.model_dump_json(), *row.values)
        if columns not in known:  # a row has all the columns that its file's format needs
            known[columns] = format_of([row], file, recipe.model, recipe.data, tokenizer)
        form = known[columns]
        _, read, cut = groups.setdefault((columns[0], form.kind, form.columns), (form, [], []))
        read.append(row)
        cut.append(example.cut)
    for form, read, cut in groups.values():
        texts = list(map(form.convert, read)) if form.kind in ("completion", "alpaca", "text") else None
        ids, rows = [row.place for row in read], [row.values for row in read]
        yield Piece(source.name, form.kind, form.columns, rows, ids, texts, sum(map(bool, cut)))


def _file_of(example: Example, recipe: Recipe) -> FileRecipe:
    name, data = example.id.rpartition("/")[0], recipe.data
    if name == "target-train":
        return data.target.train
    if isinstance(data.sources, GroupedRecipe):
        return data.sources
    return next(file for file in data.sources if (file.name or stem(file)) == name)


def count_kinds(mixture: Mixture) -> Counter[str]:
    """Rows of each kind."""
    found: Counter[str] = Counter()
    for piece in mixture.pieces:
        found[piece.kind] += len(piece.rows)
    return found
