"""Sources and target to tokenised examples with stable ids. No model, no weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gradex_fast.data.files import Row
from gradex_fast.data.formats import format_of
from gradex_fast.data.groups import check_count, grouped
from gradex_fast.data.overlap import without_overlap
from gradex_fast.data.read import read, stem
from gradex_fast.data.tokenise import tokenise
from gradex_fast.data_sections import DataRecipe, FileRecipe, GroupedRecipe
from gradex_fast.errors import GradexError
from gradex_fast.recipe import Recipe
from gradex_fast.types import Corpus, Source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["load_corpus"]

_PARTS = ("train", "validation", "test")


def load_corpus(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Corpus:
    """Read and tokenise all sources and the target; files are read anew on every call.

    Raises:
        GradexError: one line that names the file, line and column of what is missing or wrong:
            a file, a column, rows, tokens within ``max_length``, or training rows that equal
            validation or test rows.
    """
    files, unassigned = _sources(recipe.data)
    sources = [_tokenise(name, file, rows, recipe, tokenizer) for name, file, rows in files]
    train, validation, test = (_target(part, recipe, tokenizer) for part in _PARTS)
    drop = recipe.data.on_overlap == "drop"
    *kept, train = without_overlap([*sources, train], [validation, test], drop)
    for source in kept:
        if not source.examples:
            raise GradexError(f"source {source.name!r}: every row equals a validation or test row")
    return Corpus(tuple(kept), train, validation, test, unassigned)


def _sources(data: DataRecipe) -> tuple[list[tuple[str, FileRecipe, Sequence[Row]]], int]:
    """Name, file and rows of each source, and how many rows are left out."""
    if isinstance(data.sources, GroupedRecipe):
        file = data.sources
        groups, left_out = grouped(file, _some(read(file, data.folder), "data.sources", file))
        _check_names(groups)
        return [(name, file, rows) for name, rows in groups.items()], left_out
    names = [file.name or stem(file) for file in data.sources]
    _check_names(names)
    found = [_some(read(f, data.folder), f"source {n!r}", f) for n, f in zip(names, data.sources, strict=True)]
    for index, (file, rows) in enumerate(zip(data.sources, found, strict=True)):
        check_count(file, "rows", len(rows), f"data.sources.{index}")
    return list(zip(names, data.sources, found, strict=True)), 0


def _check_names(names: Iterable[str]) -> None:
    counts = Counter([*names, *(f"target-{part}" for part in _PARTS)])
    name, count = counts.most_common(1)[0]
    if count > 1:
        raise GradexError(f"two sources are called {name!r}; give each a `name` of its own")


def _some(rows: list[Row], what: str, file: FileRecipe) -> list[Row]:
    if not rows:
        raise GradexError(f"{what}: {file.path} has no rows")
    return rows


def _target(part: str, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Source:
    name, file = f"target-{part}", getattr(recipe.data.target, part)
    rows = read(file, recipe.data.folder) if file else []
    if part == "validation":
        _some(rows, "data.target.validation", file)
    if file:
        check_count(file, "rows", len(rows), f"data.target.{part}")
    return _tokenise(name, file, rows, recipe, tokenizer) if rows else Source(name, ())


def _tokenise(
    name: str,
    file: FileRecipe,
    rows: Sequence[Row],
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
) -> Source:
    length = recipe.data.max_length
    format = format_of(rows, file, recipe.model, recipe.data, tokenizer)
    source = tokenise(name, rows, list(map(format.convert, rows)), tokenizer, recipe.data, format.name)
    if source.truncated == len(rows):
        raise GradexError(
            f"source {name!r}: all {len(rows)} rows are longer than max_length={length} "
            f"({source.truncated} cut); raise data.max_length or remove the source"
        )
    if not source.examples:
        raise GradexError(
            f"source {name!r}: no row has a supervised token ({source.truncated} cut at "
            f"max_length={length}, {source.dropped} dropped)"
        )
    return source
