"""A live list on a terminal, plain lines in a pipe."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from gradex_fast import memory, progress
from gradex_fast.progress import Reporter


def spoken(terminal: bool, *, quiet: bool = False, total: int | None = 4) -> str:
    """What a reporter prints of one stage of three steps and a warning."""
    file = io.StringIO()
    with Reporter(Console(file=file, force_terminal=terminal, width=100), quiet) as reporter:
        with reporter.stage("train [meta]", total) as stage:
            for _ in range(total or 0):
                stage.advance(1, "loss 0.5")
        reporter.warn(f"[bold] {'x' * 150}")
    return file.getvalue()


def test_a_pipe_gets_a_line_a_stage_and_warnings_in_one_line():
    stage, warning = spoken(False).splitlines()
    assert stage.startswith("train [meta]: done in 0.")
    assert warning == f"warning: [bold] {'x' * 150}"


def test_quiet_keeps_warnings_alone():
    for terminal in (False, True):
        assert "train" not in spoken(terminal, quiet=True)
        assert "warning: [bold] xxx" in spoken(terminal, quiet=True)


@pytest.mark.parametrize("total", [None, 0, 4])
def test_a_finished_stage_is_full_on_a_terminal(total):
    found = spoken(True, total=total)
    assert "100%" in found and "train" in found and "\x1b" in found


class Clock:
    """time.monotonic by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_long_stage_says_how_far_how_fast_and_how_long(monkeypatch, tmp_path, terminal):
    """In a pipe now and then a line; on a terminal the same in columns; in both cases lines in the log."""
    monkeypatch.setattr(progress, "in_use", lambda: int(1.9 * 2**30))
    clock, file = Clock(monkeypatch), io.StringIO()
    with Reporter(Console(file=file, force_terminal=terminal, width=160)) as reporter:
        reporter.log_to(tmp_path / "run.log")
        with reporter.stage("sketch", 52_000, "rows") as stage:
            clock.now += 300  # loading a model
            for _ in range(4):
                stage.advance(300)
                clock.now += 1
            clock.now += 10
            stage.advance(300, "loss 0.5")  # 1,200 rows in 14 s after the first call
            clock.now += 11
            stage.advance(15_500)
    lines = [
        "sketch: 300/52000, 1.9 GiB",
        "sketch: 1500/52000, 86 rows/s, 10 min left, 1.9 GiB, loss 0.5",
        "sketch: 17000/52000, 668 rows/s, 52 s left, 1.9 GiB",
        "sketch: done in 325.0 s",
    ]
    logged = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split(" INFO ")[1] for line in logged] == lines
    said = file.getvalue()
    if terminal:
        assert all(part in said for part in ("668 rows/s", "52 s left", "1.9 GiB", " 33%"))
    else:
        assert said.splitlines() == lines


def test_without_a_total_nobody_says_how_long(monkeypatch):
    clock, file = Clock(monkeypatch), io.StringIO()
    with Reporter(Console(file=file)) as reporter, reporter.stage("select") as stage:
        for _ in range(3):
            clock.now += 20
            stage.advance(1, "forward: step")
    assert [line.partition(" GiB")[0].rpartition(", ")[0] for line in file.getvalue().splitlines()[1:3]] == [
        "select: 2, 0.05/s",
        "select: 3, 0.05/s",
    ]


def test_the_memory_is_the_processs_own():
    status = Path("/proc/self/status").read_text().splitlines()
    size = int(next(line for line in status if line.startswith("VmRSS")).split()[1]) * 1024
    assert memory.in_use() == pytest.approx(size, rel=0.05)


def test_seconds_add_up_by_stage():
    reporter = Reporter(quiet=True)
    for _ in range(2):
        with reporter.stage("select"):
            time.sleep(0.01)
    assert reporter.seconds.keys() == {"select"} and reporter.seconds["select"] >= 0.02
