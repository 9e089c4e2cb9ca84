"""The most memory that a plain or a sketch pass takes beside the model, each in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import engine_cases
import process_memory
import torch

from gradex_fast.bench.pass_cases import plain_pass
from gradex_fast.cli import calm_libraries
from gradex_fast.sketch import Sketcher


def peak_bytes(case: engine_cases.Case, sketched: bool, dim: int, distribution: str, threads: int) -> int:
    """Of two passes in a new process, the first with its self-check; on CUDA of what torch allocates."""
    plan = {"case": dataclasses.asdict(case), "sketched": sketched, "dim": dim, "distribution": distribution}
    command = [sys.executable, str(Path(__file__)), json.dumps({**plan, "threads": threads})]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def _measure(case: dict, sketched: bool, dim: int, distribution: str, threads: int) -> int:
    calm_libraries()
    torch.set_num_threads(threads)
    described = engine_cases.Case(**case)
    model, batch = engine_cases.make_model(described), engine_cases.make_batch(described)
    sketcher = Sketcher(model, dim=dim, distribution=distribution) if sketched else None
    cuda = described.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else process_memory.baseline()
    for _ in range(2):
        sketcher(batch) if sketcher else plain_pass(model, batch)
    return (torch.cuda.max_memory_allocated() if cuda else process_memory.peak()) - before


if __name__ == "__main__":
    print(_measure(**json.loads(sys.argv[1])))
