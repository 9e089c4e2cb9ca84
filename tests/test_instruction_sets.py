"""Which compiled copies of the CPU kernels can run here: all that the processor has, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gradex_fast import native

AVX2 = {"avx2", "fma"}
AVX512 = AVX2 | {"avx512f", "avx512dq", "avx512bw", "avx512vl"}
NEEDED = {"baseline": set(), "avx2": AVX2, "avx512": AVX512, "avx512bf16": AVX512 | {"avx512_bf16"}}


def test_every_instruction_set_that_linux_names_is_found() -> None:
    info = Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    if not flags:
        pytest.skip("only Linux on x86 lists them in /proc/cpuinfo")
    has = set(flags[1].split())
    assert native.instruction_sets() == [name for name, needed in NEEDED.items() if needed <= has]
