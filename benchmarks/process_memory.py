"""This process's resident memory, and its peak since a moment of one's choice (Linux)."""

from __future__ import annotations

import ctypes
from pathlib import Path


def resident() -> int:
    """Bytes now, after what the C library holds in reserve has gone back."""
    ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def baseline() -> int:
    """Bytes now; `peak` counts from here."""
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")
    return before


def peak() -> int:
    """The most bytes since `baseline`."""
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name + ":"))
