"""The command line in processes of their own, which die by SIGKILL at a chosen moment.

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
from multiprocessing.process import BaseProcess

import torch

from gradex_fast import cli

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["processes", "gradex_fast.pipeline", "gradex_fast.summary", "peft", "datasets"])

KILLED = -signal.SIGKILL


def command(*arguments: str, kill_at: tuple[str, str] | None = None) -> int:
    """Exit status of ``gradex-fast`` with `arguments`; `kill_at`: an event and a regular expression of its path."""
    return ended(started(*arguments, kill_at=kill_at))


def started(
    *arguments: str, kill_at: tuple[str, str] | None = None, environment: dict[str, str] | None = None
) -> BaseProcess:
    """``gradex-fast`` at work; `ended` waits for it."""
    process = _CONTEXT.Process(target=_child, args=(arguments, kill_at, environment or {}))
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
    pattern = re.compile(path)

    def watch(name: str, details: tuple) -> None:
        if name == event and pattern.search(str(details[0])):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _child(arguments: tuple[str, ...], kill_at: tuple[str, str] | None, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    gc.freeze()  # every training collects garbage, half a second long among all that was imported
    if kill_at:
        die_at(*kill_at)
    sys.exit(cli.main(arguments))
