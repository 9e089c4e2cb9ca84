"""What a person sees of long work: a live list of stages on a terminal, plain lines in a pipe."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_PLAIN_SECONDS = 10.0
"""In a pipe a running stage says at most one line in so many seconds."""


class Stage:
    """Progress of one stage; `advance` is cheap enough to call once a batch."""

    def __init__(self, reporter: Reporter, name: str, total: int | None) -> None:
        self._reporter, self.name, self.total, self.done = reporter, name, total, 0
        self._task = reporter.live.add_task(name, total=total, detail="") if reporter.live else None
        self._spoken = time.monotonic()

    def advance(self, amount: int = 1, detail: str = "") -> None:
        self.done += amount
        if self._task is not None:
            self._reporter.live.update(self._task, completed=self.done, detail=detail)
        elif time.monotonic() - self._spoken > _PLAIN_SECONDS:
            self._spoken = time.monotonic()
            self._reporter.say(f"  {self.name}: {self.done}/{self.total or '?'} {detail}".rstrip())

    def finish(self, seconds: float) -> None:
        if self._task is None:
            self._reporter.say(f"{self.name}: done in {seconds:.1f} s")
        elif not self.total:
            self._reporter.live.update(self._task, total=1, completed=1)


class Reporter:
    """Prints stages and messages to one console; `quiet` keeps only warnings.

    `seconds` maps each finished stage to its wall time.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet, self.seconds, self.live = quiet, {}, None

    @classmethod
    def silent(cls) -> Reporter:
        """Of a process that works beside the one that speaks."""
        return cls(Console(file=io.StringIO()), quiet=True)

    def __enter__(self) -> Reporter:
        if self.console.is_terminal and not self.quiet:
            columns = (TextColumn("{task.description:<28}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
            times = (TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[detail]}"))
            self.live = Progress(*columns, *times, console=self.console)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()
            self.live = None

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Stage]:
        """Time a block as one stage. `total` counts what `Stage.advance` advances."""
        stage, start = Stage(self, name, total), time.monotonic()
        yield stage
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
        stage.finish(self.seconds[name])

    def say(self, message: str) -> None:
        if not self.quiet:
            self.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        self.console.print(f"warning: {message}", markup=False, highlight=False, soft_wrap=True, style="yellow")
