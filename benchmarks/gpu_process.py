"""A command with a time limit, its output in a file; at the limit it is asked to stop, and then it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE = 5.0
"""Seconds from the question to the end."""


@dataclass(frozen=True)
class Outcome:
    """Attributes: code: exit status, None at the limit. seconds: that it took. log: the file with its output."""

    code: int | None
    seconds: float
    log: Path

    @property
    def status(self) -> str:
        return {0: "ok", None: "timed out"}.get(self.code, "failed")

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = 40) -> list[str]:
        return self.text.splitlines()[-lines:]


def run_within(
    seconds: float, command: Sequence[str], log: Path, folder: Path, environment: Mapping[str, str]
) -> Outcome:
    """`environment` comes on top of this process's own. The command's children end with it."""
    began = time.monotonic()
    with log.open("w") as file:
        print("$", *command, file=file, flush=True)
        options = {"cwd": folder, "env": {**os.environ, **environment}, "start_new_session": True}
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, **options)
        try:
            code = process.wait(max(1.0, seconds - GRACE))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    return Outcome(code, time.monotonic() - began, log)


def _end(process: subprocess.Popen) -> None:
    """Of a process that still runs, its whole group: SIGINT lets pytest report, SIGKILL ends what waits on a device."""
    for question in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, question)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
