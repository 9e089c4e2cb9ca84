"""A live list on a terminal, plain lines in a pipe."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from gradex_fast import progress
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


def test_a_long_stage_in_a_pipe_speaks_now_and_then(monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 10.0)
    lines = spoken(False, total=9).splitlines()
    assert [line for line in lines if line.startswith("  train")] == [
        "  train [meta]: 2/9 loss 0.5",
        "  train [meta]: 5/9 loss 0.5",
        "  train [meta]: 8/9 loss 0.5",
    ]


def test_seconds_add_up_by_stage():
    reporter = Reporter(quiet=True)
    for _ in range(2):
        with reporter.stage("select"):
            time.sleep(0.01)
    assert reporter.seconds.keys() == {"select"} and reporter.seconds["select"] >= 0.02
