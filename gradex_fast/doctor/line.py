"""One line of a doctor's report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """What was looked at.

    Attributes:
        status: "ok"; "note": not there, and nothing needs it; "wrong".
        advice: what to do, where something is to be done.
    """

    name: str
    found: str
    status: str = "ok"
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.status:<5}  {self.name}: {self.found}" + (f"; {self.advice}" if self.advice else "")


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"
