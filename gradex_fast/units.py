"""Figures as people read them."""

from __future__ import annotations

import math

_UNKNOWN = "\N{EN DASH}"


def count_text(value: float | None) -> str:
    """Two digits and a power of ten, as in 1.3e15; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}e{int(exponent)}" if value else "0"


def duration(seconds: float | None, decimals: int = 0) -> str:
    """Seconds, minutes from two on, hours from two on."""
    if seconds is None or not math.isfinite(seconds):
        return _UNKNOWN
    if seconds < 120:
        return f"{seconds:.{decimals}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def ratio_text(value: float | None) -> str:
    """How many times as much: three digits, as in 31 or 0.042; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.2g}"
