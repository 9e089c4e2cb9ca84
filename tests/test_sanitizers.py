"""The CPU kernels' C++ under the address, undefined-behaviour and thread sanitizers: `sanitize.py`."""

from __future__ import annotations

import subprocess
import sys

import pytest
import sanitize

from gradex_fast import native


@pytest.mark.parametrize(
    ("sanitizers", "instruction_sets"),
    [
        (("address", "undefined"), native.instruction_sets()),
        (("thread",), native.instruction_sets()[-1:]),  # what threads share is the same in all
    ],
    ids=["address-undefined", "thread"],
)
def test_nothing_is_found(sanitizers, instruction_sets, tmp_path):
    if reason := sanitize.why_not(sanitizers):
        pytest.skip(reason)
    options = ["--only", *sanitizers, "--instruction-sets", *instruction_sets, "--build", tmp_path]
    done = subprocess.run([sys.executable, sanitize.__file__, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
