"""Builds gradex_fast._native: C++ always, CUDA where nvcc is. Neither torch nor libtorch is needed.

Environment: GRADEX_CUDA=0 builds without CUDA, GRADEX_CUDA=1 fails without nvcc, GRADEX_CUDA_ARCH="90;100" limits the
architectures, CUDA_HOME names the toolkit.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

CXX_FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fvisibility=hidden",
    "-Wno-maybe-uninitialized",  # GCC 12's own AVX-512 header sets it off
    "-Wno-unknown-warning-option",  # Clang does not know it
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
]
AVX512 = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]
INSTRUCTION_SETS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx2", "-mfma", *AVX512],
    "avx512bf16": ["-mavx2", "-mfma", *AVX512, "-mavx512bf16"],
}
ONCE = ["bindings", "instruction_set", "parallel", "lanes"]
PER_INSTRUCTION_SET = {
    "sketch_cpu": ["baseline", "avx2", "avx512"],
    "lift_cpu": ["baseline", "avx2", "avx512"],
    "losses_cpu": ["baseline", "avx2", "avx512"],
    "solve_cpu": ["baseline", "avx2", "avx512", "avx512bf16"],
}
CUDA = ["sketch_cuda", "lift_cuda"]
CUDA_ARCHITECTURES = ["80", "86", "89", "90", "100", "120"]


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc", path=os.path.join(home, "bin") if home else None) or shutil.which("nvcc")
    wanted = os.environ.get("GRADEX_CUDA")
    if wanted == "1" and not nvcc:
        raise SystemExit("GRADEX_CUDA=1, but nvcc was found neither in CUDA_HOME nor on PATH")
    return None if wanted == "0" else nvcc


def nvcc_library_folders(nvcc: str) -> list[str]:
    """nvcc may be a wrapper, so it is asked where its libraries are."""
    said = subprocess.run([nvcc, "--dryrun", "-c", "none.cu"], capture_output=True, text=True).stderr
    line = next((line for line in said.splitlines() if "LIBRARIES=" in line), "")
    return [folder for folder in re.findall(r'-L"?([^"\s]+)', line) if not folder.endswith("stubs")]


def nvcc_architectures(nvcc: str) -> list[str]:
    """Machine code for every wanted architecture that this nvcc knows, PTX for the newest."""
    known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
    asked = os.environ.get("GRADEX_CUDA_ARCH", ";".join(CUDA_ARCHITECTURES)).split(";")
    wanted = [arch for arch in asked if f"sm_{arch}" in known]
    if not wanted:
        raise SystemExit(f"{nvcc} knows none of the architectures {asked}; it knows {known}")
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in wanted]
    return [*codes, f"-gencode=arch=compute_{wanted[-1]},code=compute_{wanted[-1]}"]


class Build(build_ext):
    """Compiles each source with its own flags, two at a time or more, then links them all."""

    def build_extension(self, extension: Pybind11Extension) -> None:
        temp = Path(self.build_temp)
        temp.mkdir(parents=True, exist_ok=True)
        nvcc, x86 = find_nvcc(), platform.machine().lower() in ("x86_64", "amd64")
        jobs = self.cpp_jobs(extension, temp, x86, bool(nvcc))
        libraries: list[str] = []
        if nvcc:
            jobs += self.cuda_jobs(nvcc, temp)
            libraries = [*(f"-L{folder}" for folder in nvcc_library_folders(nvcc)), "-lcudart_static", "-ldl", "-lrt"]
        with ThreadPoolExecutor(self.parallel or os.cpu_count() or 1) as pool:
            list(pool.map(lambda job: self.spawn(job[1]), jobs))
        target = self.get_ext_fullpath(extension.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        flags = ["-pthread", *libraries]
        self.compiler.link_shared_object([o for o, _ in jobs], target, extra_postargs=flags, target_lang="c++")

    def cpp_jobs(self, extension: Pybind11Extension, temp: Path, x86: bool, cuda: bool) -> list[tuple[str, list[str]]]:
        command = [*self.compiler.compiler_so_cxx, *CXX_FLAGS, "-fPIC", "-pthread"]
        command += [f"-I{folder}" for folder in [*extension.include_dirs, *self.compiler.include_dirs]]
        command += ["-DGRADEX_X86"] if x86 else []
        command += ["-DGRADEX_CUDA"] if cuda else []
        jobs = [job(command, stem, temp / f"{stem}.o") for stem in ONCE]
        for stem, names in PER_INSTRUCTION_SET.items():
            for name in names if x86 else names[:1]:
                tagged = [*command, *INSTRUCTION_SETS[name], f"-DGRADEX_ISA={name}"]
                jobs.append(job(tagged, stem, temp / f"{stem}.{name}.o"))
        return jobs

    def cuda_jobs(self, nvcc: str, temp: Path) -> list[tuple[str, list[str]]]:
        options = ["-std=c++17", "-O3", "--threads=0", "-Xcompiler=-fPIC,-fvisibility=hidden"]
        command = [nvcc, *options, *nvcc_architectures(nvcc)]
        return [job(command, stem, temp / f"{stem}.o", ".cu") for stem in CUDA]


def job(command: list[str], stem: str, output: Path, ending: str = ".cpp") -> tuple[str, list[str]]:
    return str(output), [*command, "-c", f"csrc/{stem}{ending}", "-o", str(output)]


headers = sorted(str(path) for path in Path("csrc").glob("*.h"))
sources = sorted(str(path) for path in Path("csrc").glob("*.c*"))
setup(
    ext_modules=[Pybind11Extension("gradex_fast._native", sources, depends=headers, language="c++")],
    cmdclass={"build_ext": Build},
)
