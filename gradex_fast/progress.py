"""What a person sees of long work: a live list of stages on a terminal, plain lines in a pipe, all of it in run.log."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gradex_fast.memory import in_use
from gradex_fast.runlog import RunLog
from gradex_fast.units import duration

_PLAIN_SECONDS = 10.0
"""In a pipe, and in the log, a running stage says at most one line in so many seconds."""


class Stage:
    """Progress of one stage; `advance` is cheap enough to call once a batch.

    Rate and time left are of what came after the first call: models are loaded before it, and a training that goes on
    takes up the steps of its checkpoint in it.
    """

    def __init__(self, reporter: Reporter, name: str, total: int | None, unit: str = "") -> None:
        self._reporter, self.name, self.total, self.done, self._unit = reporter, name, total, 0, unit
        self._task = reporter.live.add_task(name, total=total, rate="", left="", detail="") if reporter.live else None
        self._spoken, self._first = time.monotonic(), None

    def advance(self, amount: int = 1, detail: str = "") -> None:
        self.done += amount
        now = time.monotonic()
        if self._first is None:
            self._first = now, self.done
        rate, left = self._rate(now)
        if self._task is not None:
            columns = {"rate": rate, "left": left, "detail": ", ".join(filter(None, (_memory(), detail)))}
            self._reporter.live.update(self._task, completed=self.done, **columns)
        if now - self._spoken > _PLAIN_SECONDS:
            self._spoken = now
            parts = (f"{self.done}/{self.total}" if self.total else f"{self.done}", rate, left, _memory(), detail)
            self._reporter.note(f"{self.name}: {', '.join(filter(None, parts))}")

    def _rate(self, now: float) -> tuple[str, str]:
        """As "310 rows/s" and "2 min left"; empty while nothing is known."""
        since, before = self._first
        if now <= since or self.done <= before:
            return "", ""
        rate = (self.done - before) / (now - since)
        left = f"{duration((self.total - self.done) / rate)} left" if self.total and self.done <= self.total else ""
        number, unit = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}", f" {self._unit}" if self._unit else ""
        return f"{number}{unit}/s", left

    def finish(self, seconds: float) -> None:
        self._reporter.note(f"{self.name}: done in {seconds:.1f} s")
        if self._task is not None and not self.total:
            self._reporter.live.update(self._task, total=1, completed=1)


class Reporter:
    """Prints stages and messages to one console and keeps them in a log; `quiet` prints only warnings.

    `seconds` maps each finished stage to its wall time.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet, self.seconds, self.live = quiet, {}, None
        self._log = RunLog(self._show_warning)

    @classmethod
    def silent(cls) -> Reporter:
        """Of a process that works beside the one that speaks."""
        return cls(Console(file=io.StringIO()), quiet=True)

    def __enter__(self) -> Reporter:
        self._log.start()
        if self.console.is_terminal and not self.quiet:
            columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            texts = (TextColumn(f"{{task.fields[{field}]}}") for field in ("rate", "left", "detail"))
            self.live = Progress(*columns, TimeElapsedColumn(), *texts, console=self.console)
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if kind:
            self._log.write(logging.ERROR, f"stopped: {kind.__name__}: {error}")
        self._log.stop()
        if self.live:
            self.live.stop()
            self.live = None

    def log_to(self, path: Path) -> None:
        """Keep a log there; what was said before comes first."""
        self._log.open(path)

    @contextmanager
    def stage(self, name: str, total: int | None = None, unit: str = "") -> Iterator[Stage]:
        """Time a block as one stage. `total` counts what `Stage.advance` advances: so many of `unit`."""
        stage, start = Stage(self, name, total, unit), time.monotonic()
        yield stage
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
        stage.finish(self.seconds[name])

    def note(self, message: str) -> None:
        """For the log, and for a console that has no live list."""
        if self.live:
            self._log.write(logging.INFO, message)
        else:
            self.say(message)

    def say(self, message: str) -> None:
        self._log.write(logging.INFO, message)
        if not self.quiet:
            self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        self._log.write(logging.WARNING, message)
        self._show_warning(message)

    def _show_warning(self, message: str) -> None:
        self.console.print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True, style="yellow")


def _memory() -> str:
    return f"{in_use() / 2**30:.1f} GiB"
