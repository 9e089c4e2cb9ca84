"""Raw rows as sources (GRADEX-DS): clusters in the place of a run's sources, and which row is in which."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from gradex_fast.clustering import ALONE, cluster_rows
from gradex_fast.errors import GradexError
from gradex_fast.files import checksum, file_checksum, write_atomically
from gradex_fast.sections import ClustersRecipe
from gradex_fast.state import Run
from gradex_fast.types import Corpus, Example, Source


def cut_into_clusters(run: Run) -> None:
    """Put clusters in the place of the sources that the recipe names, and the training sketches in their order.

    Raises:
        GradexError: fewer sources come out than ``select.keep`` asks for, or a source is called like a cluster.
    """
    owners, whole, train = _owners(run), run.corpus.sources, len(run.corpus.train.examples)
    corpus, order = in_clusters(run.corpus, owners, run.recipe.clusters)
    _check(run, corpus.sources, Counter(owners))
    run.train = run.train[np.concatenate([order, np.arange(len(owners), len(owners) + train)])]
    run.whole, run.corpus = whole, corpus


def in_clusters(corpus: Corpus, owners: Sequence[str], recipe: ClustersRecipe) -> tuple[Corpus, np.ndarray]:
    """The corpus with clusters in the place of the sources that are cut, and int [rows], where each row was.

    Args:
        owners: by row of the sources, in order: its cluster, or its source where that stays whole.
    """
    examples = [example for source in corpus.sources for example in source.examples]
    members: dict[str, list[int]] = {}
    for row, owner in enumerate(owners):
        members.setdefault(owner, []).append(row)
    cut = corpus.names if recipe.sources == "all" else recipe.sources
    uncut = {source.name: source for source in corpus.sources if source.name not in cut}
    new = [uncut.get(name) or Source(name, tuple(examples[row] for row in rows)) for name, rows in members.items()]
    return replace(corpus, sources=tuple(new)), np.concatenate([*members.values()]).astype(int)


def origin(source: Source) -> str:
    """Where a cluster's rows come from, such as ``alpaca 12, code 3``."""
    counts = Counter(example.id.rpartition("/")[0] for example in source.examples)
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _owners(run: Run) -> list[str]:
    """The cluster of every row, or its source where that stays whole; made once and kept with the rows' ids."""
    path, recipe = run.path / "clusters.parquet", run.recipe.clusters
    data = checksum(recipe.model_dump_json(), str(run.recipe.seed), np.ascontiguousarray(run.train.g).data)
    note = run.workspace.done("clusters")
    if note and note["data"] == data and path.exists() and file_checksum(path) == note["checksum"]:
        return parquet.read_table(path)["cluster"].to_pylist()
    with run.reporter.stage("cluster"):
        owners = _clustered(run)
        _write(path, run.examples(), owners)
    run.workspace.finish("clusters", {"data": data, "checksum": file_checksum(path)})
    return owners


def _clustered(run: Run) -> list[str]:
    owners, recipe = [source.name for source in run.corpus.sources for _ in source.examples], run.recipe.clusters
    for name, rows in _cuts(run):
        labels = cluster_rows(run.train.g[rows], recipe.count, recipe.method, run.recipe.seed)
        owners[rows.start : rows.stop] = [_title(name, label, recipe.count) for label in labels]
    return owners


def _cuts(run: Run) -> Iterator[tuple[str, range]]:
    """The name and the rows of everything that is cut; all sources together have no name."""
    sources = run.corpus.sources
    ends = np.cumsum([len(source.examples) for source in sources]).tolist()
    if run.recipe.clusters.sources == "all":
        yield sources[0].name if len(sources) == 1 else "", range(ends[-1])
        return
    for source, end in zip(sources, ends, strict=True):
        if source.name in run.recipe.clusters.sources:
            yield source.name, range(end - len(source.examples), end)


def _title(name: str, label: int, count: int) -> str:
    title = "no gradient" if label == ALONE else f"cluster {label:0{max(3, len(str(count - 1)))}d}"
    return f"{name}/{title}" if name else title


def _write(path: Path, examples: Sequence[Example], owners: Sequence[str]) -> None:
    ids = [example.id for example in examples[: len(owners)]]
    table = pa.table({"row": ids, "source": [name.rpartition("/")[0] for name in ids], "cluster": owners})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(path, buffer.getvalue())


def _check(run: Run, sources: Sequence[Source], rows: Mapping[str, int]) -> None:
    if (run.recipe.select.keep or 0) > len(sources):
        raise GradexError(f"select.keep is {run.recipe.select.keep}, but the rows fell into {len(sources)} clusters")
    for source in sources:
        if len(source.examples) != rows[source.name]:
            raise GradexError(f"a source is called {source.name!r}, like a cluster; give it another name")
    single = sum(len(source.examples) == 1 for source in sources)
    if single:
        run.warn(f"{single} of {len(sources)} clusters have a single row; a smaller clusters.count makes larger ones")
