"""SIGTERM, as schedulers send it before they kill: raised like Ctrl-C, or held back until a good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Terminated(BaseException):
    """SIGTERM came. Not an Exception, so that nothing on the way takes it for a failure of its own."""


class _Waiting:
    """Whether a SIGTERM is to wait, and whether one does."""

    held, asked = False, False


@contextmanager
def terminable() -> Iterator[None]:
    """While open, SIGTERM raises `Terminated` in the main thread; elsewhere it does what it did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """While open, a first SIGTERM waits for the end of the block. Yields whether one came; a second one is raised.

    Raises:
        Terminated: at the end, if one came.
    """
    _Waiting.held, _Waiting.asked = True, False
    try:
        yield lambda: _Waiting.asked
    finally:
        _Waiting.held = False
    if _Waiting.asked:
        raise Terminated


def _receive(number: int, frame: object) -> None:
    if not _Waiting.held or _Waiting.asked:
        raise Terminated
    _Waiting.asked = True
