"""The CPU, the compiled extension, and the CUDA device, or why there is none."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from gradex_fast.doctor.line import Line, first_line

_DRIVER = Path("/proc/driver/nvidia/version")


def machine_lines() -> Iterator[Line]:
    yield Line("cpu", f"{cpu_name()}, {cores()} of {os.cpu_count()} logical cores")
    torch, native = _loaded("torch"), _loaded("gradex_fast.native")
    if isinstance(native, Exception):
        yield Line("extension", first_line(native), "wrong", "mend torch first, or in the checkout: pip install -e .")
    else:
        yield Line("instruction sets", f"{', '.join(native.instruction_sets())}; in use: {native.instruction_set()}")
    if not isinstance(torch, Exception):
        yield _threads(torch, native)
        yield from _cuda(torch, native)


def cuda_usable() -> bool:
    """Whether kernels can run on a CUDA device."""
    torch, native = _loaded("torch"), _loaded("gradex_fast.native")
    if isinstance(torch, Exception) or isinstance(native, Exception):
        return False
    return native.CUDA_BUILT and torch.cuda.is_available()


def _loaded(module: str) -> Any:
    """The module, or what it raised."""
    try:
        return import_module(module)
    except Exception as error:  # whatever it raises: that is the finding
        return error


def _threads(torch: Any, native: Any) -> Line:
    count = torch.get_num_threads()
    if isinstance(native, Exception) or native.SHARES_TORCH_THREADS:
        return Line("threads", f"{count}, shared with torch")
    return Line("threads", f"{count}, beside torch's own: its OpenMP runtime could not be told", "note")


def _cuda(torch: Any, native: Any) -> Iterator[Line]:
    available = torch.cuda.is_available()
    if not isinstance(native, Exception):
        yield _built(native.CUDA_BUILT, available)
    if not available:
        yield _no_device(torch)
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        memory = f"{about.total_memory / 2**30:.0f} GiB"
        yield Line(f"cuda:{index}", f"{about.name}, compute capability {about.major}.{about.minor}, {memory}")


def _built(built: bool, available: bool) -> Line:
    if built:
        return Line("cuda kernels", "built")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin") if home else None) or shutil.which("nvcc")
    why = f"not built, though nvcc is at {nvcc} now" if nvcc else "not built: nvcc is neither in CUDA_HOME nor on PATH"
    again = "GRADEX_CUDA=1 pip install --force-reinstall --no-deps -e ."
    if available:
        return Line("cuda kernels", why, "wrong", f"for this GPU: {again}; or set device: cpu in recipes")
    return Line("cuda kernels", why, "note", f"for a GPU: {again}")


def _no_device(torch: Any) -> Line:
    driver = _DRIVER.exists()
    if torch.version.cuda is None:
        found = f"none: torch {torch.__version__} has no CUDA"
        advice = "to use this machine's GPU install a CUDA build of torch (pytorch.org)" if driver else ""
        return Line("cuda device", found, "note", advice)
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return Line("cuda device", "none: CUDA_VISIBLE_DEVICES hides all", "note", "unset it to use a GPU")
    if not driver:
        return Line("cuda device", "none: no NVIDIA driver is loaded", "note", "to use a GPU install its driver")
    try:
        torch.cuda.init()
        said = "torch finds none"
    except Exception as error:  # the driver's own words
        said = first_line(error)
    return Line("cuda device", f"none: {said}", "wrong", f"torch is for CUDA {torch.version.cuda}: update the driver")


def cpu_name() -> str:
    """As the system names it, or the architecture."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def cores() -> int:
    """Logical cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
