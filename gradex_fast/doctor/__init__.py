"""`gradex-fast doctor`: whether this installation is right, line by line, and what to do where it is not.

Imports what it looks at only when it does: a package that cannot be imported is a line, not the end.
"""

from __future__ import annotations

from collections.abc import Iterator

from gradex_fast.doctor.line import Line, first_line
from gradex_fast.doctor.machine import cuda_usable, machine_lines
from gradex_fast.doctor.packages import package_lines
from gradex_fast.doctor.selfcheck import kernel_lines

__all__ = ["Line", "examine"]


def examine() -> Iterator[Line]:
    """Lines as they are found out; the installation is right if none is "wrong"."""
    yield from package_lines()
    yield from machine_lines()
    try:
        yield from kernel_lines(cuda_usable())
    except Exception as error:  # torch or the extension is missing, which a line above has said
        yield Line("kernels", f"not checked: {first_line(error)}", "wrong", "mend what is wrong above first")
