"""Kernels under another default device and dtype of torch, in a process of its own: these leave something behind."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

_PROGRAM = """
import torch
from gradex_fast import kernels
x, d, plan = torch.randn(5, 3, 17), torch.randn(5, 3, 9), {plan!r}
expected = kernels.sketch(x, d, dim=5, **plan), kernels.lift(x[0], 20, **plan)
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
got = kernels.sketch(x, d, dim=5, lengths=[3] * 5, **plan), kernels.lift(x[0], 20, **plan)
torch.set_default_device("cpu")
assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
print("the same")
"""


def check(plan: dict[str, Any]) -> None:
    """They do not matter."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM.format(plan=plan)], capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stderr
