"""The command line in processes of their own, which die by SIGKILL, or get SIGTERM, at a chosen moment.

The moment is an event that Python audits (``open``, ``os.rename`` ...) on a path: exact, where waiting for a file to
appear would be a race. The processes are forked from a server that has imported everything once.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import torch

from gradex_fast import cli

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["processes", "parts", "gradex_fast.pipeline", "gradex_fast.summary", "peft", "datasets"]
)

KILLED = -signal.SIGKILL
TERMINATED = 128 + signal.SIGTERM  # by itself, in good order; -SIGTERM would be death by the signal


def command(
    *arguments: str, kill_at: tuple[str, str] | None = None, terminate_at: tuple[str, str] | None = None
) -> int:
    """Exit status of ``gradex-fast`` with `arguments`; `kill_at`: an event and a regular expression of its path."""
    return ended(started(*arguments, kill_at=kill_at, terminate_at=terminate_at))


def started(
    *arguments: str,
    kill_at: tuple[str, str] | None = None,
    terminate_at: tuple[str, str] | None = None,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> BaseProcess:
    """``gradex-fast`` at work; `ended` waits for it. `before`: called there first."""
    process = _CONTEXT.Process(target=_child, args=(arguments, kill_at, terminate_at, environment or {}, before))
    process.start()
    return process


def ended(process: BaseProcess) -> int:
    """Its exit status."""
    process.join(120)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{process.name} took over two minutes")
    return process.exitcode


def die_at(event: str, path: str) -> None:
    """From now on this process dies before `event` on a path in which `path` is found."""
    _signal_at(event, path, signal.SIGKILL)


def _signal_at(event: str, path: str, number: int) -> None:
    """Once."""
    pattern, sent = re.compile(path), []

    def watch(name: str, details: tuple) -> None:
        if name == event and not sent and pattern.search(str(details[0])):
            sent.append(number)
            os.kill(os.getpid(), number)

    sys.addaudithook(watch)


def _child(
    arguments: tuple[str, ...],
    kill_at: tuple[str, str] | None,
    terminate_at: tuple[str, str] | None,
    environment: dict[str, str],
    before: Callable[[], None] | None,
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    if before:
        before()
    gc.freeze()  # every training collects garbage, half a second long among all that was imported
    if kill_at:
        die_at(*kill_at)
    if terminate_at:
        _signal_at(*terminate_at, signal.SIGTERM)
    sys.exit(cli.main(arguments))
