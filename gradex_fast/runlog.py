"""run.log: what a run says and what libraries warn of, with times. Until the file is known, all waits in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import MemoryHandler
from pathlib import Path

_SILENT = ("transformers", "datasets")
"""They hand nothing to the root logger, unless told to (transformers: by a variable CI)."""


class RunLog:
    """Open between `start` and `stop`; opened again it appends.

    Args:
        warn: shows one line of a library's warning where nobody else does. Without handlers of its own, Python prints
            warnings to stderr, but not once the log listens.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._path: Path | None = None
        self._waiting = MemoryHandler(1, flushLevel=logging.CRITICAL + 1)  # flushes every record once it has a target
        self._waiting.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._waiting.addFilter(_first_time)
        self._shown = _Shown(warn)

    def start(self) -> None:
        root = logging.getLogger()
        if not root.handlers:
            root.addHandler(self._shown)
        for name in ("", *_SILENT):
            logging.getLogger(name).addHandler(self._waiting)
        logging.captureWarnings(True)
        if self._path:
            self.open(self._path)

    def open(self, path: Path) -> None:
        """From now on into this file; one that cannot be written is no reason to stop a run."""
        self._path = path
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _Quiet(path, encoding="utf-8")
            file.setFormatter(self._waiting.formatter)
            self._waiting.setTarget(file)
            self._waiting.flush()

    def stop(self) -> None:
        logging.captureWarnings(False)
        logging.getLogger().removeHandler(self._shown)
        for name in ("", *_SILENT):
            logging.getLogger(name).removeHandler(self._waiting)
        if file := self._waiting.target:
            self._waiting.setTarget(None)
            file.close()

    def write(self, level: int, message: str) -> None:
        """A line of the run's own."""
        self._waiting.handle(logging.LogRecord("gradex_fast", level, "", 0, message, None, None))


def _first_time(record: logging.LogRecord) -> bool:
    """Of a record that reaches the file by its own logger and by the root one, the first."""
    seen = hasattr(record, "in_run_log")
    record.in_run_log = True
    return not seen


class _Quiet(logging.FileHandler):
    """A full disk stops a run where a result is written, not here."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _Shown(logging.Handler):
    """Warnings as one line each."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        self._warn(record.getMessage().strip().partition("\n")[0])
