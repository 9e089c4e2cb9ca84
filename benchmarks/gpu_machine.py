"""The device, its clocks as they are found, and the versions of what runs on it. Only reads.

Run by itself it prints all of it as JSON: a process that has looked at the device holds some of its memory.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("torch", "transformers", "peft", "numpy", "pybind11", "pytest", "hypothesis")
CLOCKS = ("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.draw", "temperature.gpu")


def facts() -> dict[str, Any]:
    return {
        "device": device(),
        "versions": {name: _version(name) for name in PACKAGES} | {"CUDA": torch.version.cuda, "nvcc": nvcc_version()},
        "python": sys.version.split()[0],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "clocks": said(["nvidia-smi", "-q", "-d", "CLOCK"]).splitlines(),
    }


def device() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"name": "no CUDA device", "capability": None}
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "GiB": round(found.total_memory / 2**30, 1),
        **query("driver_version", *CLOCKS),
    }


def query(*names: str) -> dict[str, str]:
    """nvidia-smi's properties of the first device that this process sees; "unknown" where it does not say."""
    which = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    found = said(["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader", "-i", which]).split(", ")
    return dict(zip(names, found if len(found) == len(names) else ["unknown"] * len(names), strict=True))


def per_clock(rate: float, calls: Sequence[Callable[[], object]], seconds: float = 0.5) -> str:
    """`rate` a second by multiprocessors and their clock, which is read while the calls run; "" where it cannot be."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    calls[0]()
    end.record()
    end.synchronize()
    once = max(1e-5, start.elapsed_time(end) / 1e3)
    for index in range(min(500, int(seconds / once))):
        calls[index % len(calls)]()
    found = re.match(r"\d+", query("clocks.sm")["clocks.sm"])
    torch.cuda.synchronize()
    if not found or int(found[0]) == 0:
        return ""
    count = torch.cuda.get_device_properties(0).multi_processor_count
    return f"{rate / count / (1e6 * int(found[0])):.2f} a clock and multiprocessor, {count} at {found[0]} MHz"


def cuda_tool(name: str) -> str | None:
    """Where nvcc or compute-sanitizer is: in CUDA_HOME, on the path, or in the usual place."""
    homes = [os.environ.get(variable) for variable in ("CUDA_HOME", "CUDA_PATH")]
    found = [shutil.which(name, path=str(Path(home) / "bin")) for home in homes if home]
    found += [shutil.which(name), shutil.which(name, path="/usr/local/cuda/bin")]
    return next((path for path in found if path), None)


def nvcc_version() -> str | None:
    nvcc = cuda_tool("nvcc")
    found = re.search(r"release [^,]+, V(\S+)", said([nvcc, "--version"])) if nvcc else None
    return found[1] if found else None


def commit() -> str:
    """With "-dirty" where files differ; "unknown" without git."""
    found = said(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"])
    changed = said(["git", "-C", str(ROOT), "status", "--porcelain", "-uno"]) if found else ""
    return (found or "unknown") + ("-dirty" if changed else "")


def said(command: Sequence[str]) -> str:
    """A command's output; "" when it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(facts()))
