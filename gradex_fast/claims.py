"""Who works on what, among the processes of a job: locks of the file system, which end with their holder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claimed(folder: Path, name: str, wait: bool = False) -> Iterator[bool]:
    """Whether this process has `name` to itself while open; others of the same folder then have not.

    On a file system without locks everybody is told yes: what is claimed must come to no harm when two do it.

    Args:
        wait: until it is free; then always true.
    """
    place = folder / ".locks" / f"{name}.lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield _locked(lock, wait)
    finally:
        os.close(lock)  # gives the lock back; never removed, or two could each hold one of that name


def _locked(lock: int, wait: bool) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # NFS 3 without its lock service, Lustre mounted without flock
        return True
    return True
