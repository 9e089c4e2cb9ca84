"""`preview`: what a recipe trains on, token by token. Loads no model, writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from gradex_fast.data import load_corpus
from gradex_fast.errors import GradexError
from gradex_fast.model import load_tokenizer
from gradex_fast.recipe import Recipe
from gradex_fast.token_text import special_ids, token_texts, visible
from gradex_fast.types import UNSUPERVISED, Corpus, Example, Source

SOURCES = 10
"""Shown at most, where none is named."""

_LEGEND = "+ loss, - no loss, * special token; · space, ⏎ end of line, ⇥ tab, other such characters as \\uXXXX"
_LEGEND_COLOURED = "green: loss; dim: no loss; reverse: special token; " + _LEGEND.partition("; ")[2]

Preview = dict[str, Any]


def preview(recipe: Recipe, rows: int = 2, source: str | None = None) -> Preview:
    """JSON values: of each source, or the one of that name, its counts and its first `rows` rows as tokens.

    The whole corpus is read and cut as `run` does it, so that what is shown is what is trained on.

    Raises:
        GradexError: whatever `pipeline.prepare` would refuse of the data, or there is no such source.
    """
    tokenizer = load_tokenizer(recipe.model)
    corpus = load_corpus(recipe, tokenizer)
    parts, hidden = _shown(corpus, source)
    classes = recipe.model.task == "sequence-classification"
    return {
        "sources": [_source(part, rows, tokenizer, classes) for part in parts],
        "hidden": hidden,
        "unassigned": corpus.unassigned,
    }


def print_preview(found: Preview, console: Console) -> None:
    """One token a line where nobody looks (``+ 262 ·the``), running text in colour on a terminal."""
    write = _write_coloured if console.is_terminal else _write_plain
    _line(console, _LEGEND_COLOURED if console.is_terminal else _LEGEND)
    for source in found["sources"]:
        _line(console, "")
        _line(console, _heading(source))
        for example in source["examples"]:
            _line(console, _caption(example))
            write(example["tokens"], console)
    if found["hidden"]:
        _line(console, f"\n{found['hidden']:,} more sources; --source NAME shows one")
    if found["unassigned"]:
        _line(console, f"\n{found['unassigned']:,} rows name no source and are left out")


def _shown(corpus: Corpus, name: str | None) -> tuple[Sequence[Source], int]:
    held = [part for part in (corpus.train, corpus.validation, corpus.test) if part.examples]
    if name is None:
        return [*corpus.sources[:SOURCES], *held], max(0, len(corpus.sources) - SOURCES)
    parts = [part for part in (*corpus.sources, *held) if part.name == name]
    if not parts:
        raise GradexError(
            f"there is no source {name!r}; there are {', '.join(p.name for p in (*corpus.sources, *held))}"
        )
    return parts, 0


def _source(source: Source, rows: int, tokenizer: Any, classes: bool) -> Preview:
    counts = {key: getattr(source, key) for key in ("format", "tokens", "truncated", "dropped", "overlapping")}
    examples = [_example(example, tokenizer, classes) for example in source.examples[:rows]]
    sums = {"loss": sum(e.supervised for e in source.examples), "cut": sum(e.cut for e in source.examples)}
    return {"name": source.name, "rows": len(source.examples), **counts, **sums, "examples": examples}


def _example(example: Example, tokenizer: Any, classes: bool) -> Preview:
    ids, special = example.input_ids.tolist(), special_ids(tokenizer)
    loss = [False] * len(ids) if classes else (example.labels != UNSUPERVISED).tolist()
    found = zip(ids, token_texts(tokenizer, ids), loss, strict=True)
    tokens = [{"id": i, "text": text, "loss": on, "special": i in special} for i, text, on in found]
    label = {"class": int(example.labels[0])} if classes else {}
    return {"id": example.id, **label, "cut": example.cut, "loss": example.supervised, "tokens": tokens}


def _heading(source: Preview) -> str:
    lost = {"of them cut": "truncated", "dropped": "dropped", "left out as held-out rows": "overlapping"}
    losses = "".join(f", {source[key]:,} {what}" for what, key in lost.items() if source[key])
    tokens = f"{source['tokens']:,} tokens, loss on {source['loss']:,}, {source['cut']:,} cut"
    return f"{source['name']}: {source['rows']:,} rows{losses}; {tokens}; {source['format']}"


def _caption(example: Preview) -> str:
    label = f", class {example['class']}" if "class" in example else f", loss on {example['loss']:,}"
    return f"{example['id']}: {len(example['tokens']):,} tokens{label}, {example['cut']:,} cut"


def _write_plain(tokens: Sequence[Preview], console: Console) -> None:
    for token in tokens:
        marks = ("-", "+")[token["loss"]] + (" ", "*")[token["special"]]
        _line(console, f"  {marks}{token['id']:>7} {visible(token['text'])}")


def _write_coloured(tokens: Sequence[Preview], console: Console) -> None:
    console.print(Text.assemble(*_pieces(tokens)))


def _pieces(tokens: Sequence[Preview]) -> Iterator[tuple[str, str]]:
    for token in tokens:
        style = "bold green" if token["loss"] else "dim"
        yield visible(token["text"]), style + (" reverse" if token["special"] else "")
        yield f" {token['id']} ", "dim italic"


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
