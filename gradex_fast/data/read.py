"""Where rows come from: a file under the recipe's folder, a data set's folder, or the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from gradex_fast.data.files import Row, rows_of
from gradex_fast.data_sections import FILE_ENDING, FileRecipe
from gradex_fast.errors import GradexError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def read(file: FileRecipe, folder: str | Path) -> list[Row]:
    """The rows of `file`, at most `file.limit` of them; relative paths start at `folder`.

    Raises:
        GradexError: nothing is there, it cannot be read, or a row is malformed.
    """
    path = Path(folder).expanduser() / Path(file.path).expanduser()
    if FILE_ENDING.search(file.path) or path.is_file():
        _check_file(file, path)
        what, rows = file.path, rows_of(path, file.path)
    elif path.is_dir():
        what, rows = str(path), _hub(file, str(path))
    elif _HUB_ID.fullmatch(file.path):
        what, rows = f"{file.path} from the hub (no such file: {path})", _hub(file, file.path)
    else:
        raise GradexError(f"cannot find {path}; check data.folder, or name a hub data set")
    try:
        return list(islice(rows, file.limit))
    except GradexError:
        raise
    except Exception as error:  # every format's library and the hub have exceptions of their own
        raise GradexError(f"cannot read {what}: {_one_line(error)}") from error


def stem(file: FileRecipe) -> str:
    """A source's name where the recipe gives none: ``mix`` of ``data/mix.jsonl.zst``."""
    name = FILE_ENDING.sub("", Path(file.path).name)
    return f"{name}-{file.config}" if file.config else name


def _check_file(file: FileRecipe, path: Path) -> None:
    if not FILE_ENDING.search(file.path):
        known = ".jsonl .json .csv (also .gz .zst) .parquet"
        raise GradexError(f"cannot tell the format of {path}; known endings: {known}")
    if not path.is_file():
        raise GradexError(f"cannot find file {path}; relative paths start at data.folder")
    if file.config or file.revision or file.files or file.split != "train":
        raise GradexError(f"{file.path} is a file: config, revision, files and split are for hub data sets")


def _hub(file: FileRecipe, path: str) -> Iterator[Row]:
    import datasets  # 1.5 s, which runs on local files need not spend

    options = {} if file.files is None else {"data_files": file.files if isinstance(file.files, str) else [*file.files]}
    with _no_progress_bars(datasets):
        rows = datasets.load_dataset(path, file.config, split=file.split, revision=file.revision, **options)
    for number, values in enumerate(rows, 1):
        yield Row(f"{file.path} row {number}", values)


@contextmanager
def _no_progress_bars(datasets) -> Iterator[None]:
    off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not off:
            datasets.enable_progress_bars()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
