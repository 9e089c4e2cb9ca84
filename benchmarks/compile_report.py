"""What the CUDA compiler makes of every kernel on every architecture: registers, shared memory, spills.

    python benchmarks/compile_report.py --out benchmarks/results/cuda_kernels.json

Needs nvcc, no GPU. A Markdown table goes beside the JSON. Exit status 1: a kernel spills, or there is none.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import solve_report

ROOT = Path(__file__).resolve().parents[1]
FUNCTION = re.compile(r"Compiling entry function '(?P<name>[^']+)' for '(?P<arch>[^']+)'")
SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")


def architectures() -> list[str]:
    """Those that setup.py builds for; to import it would build."""
    line = re.search(r"^CUDA_ARCHITECTURES = (\[.*\])$", (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
    return ast.literal_eval(line[1])


def compiled(stem: str, arch: str) -> str:
    """What ptxas says."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-std=c++17", "-O3", "-Xptxas=-v", f"-gencode=arch=compute_{arch},code=sm_{arch}", "-c"]
        command += [str(ROOT / "csrc" / f"{stem}.cu"), "-o", str(Path(folder) / "object.o")]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stderr


def readable(name: str) -> str:
    """A mangled kernel's name without namespaces."""
    plain = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout.strip()
    plain = re.sub(r"gradex::|baseline::|\(anonymous namespace\)::|^void ", "", plain)
    return plain[: plain.rindex("(")]


def rows(stem: str, arch: str) -> list[dict]:
    """A row for every kernel of a source."""
    blocks = re.split(r"(?=ptxas info\s+: Compiling entry function)", compiled(stem, arch))
    found = []
    for block in blocks:
        if entry := FUNCTION.search(block):
            stack, stores, loads = map(int, SPILLS.search(block).groups())
            figures = {"registers": int(USED.search(block)[1]), "stack bytes": stack, "spilled bytes": stores + loads}
            found.append({"kernel": readable(entry["name"]), "architecture": entry["arch"], **figures})
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write; Markdown goes beside it")
    options = parser.parse_args()
    if not shutil.which("nvcc"):
        raise SystemExit("nvcc is not on PATH")
    jobs = list(product(sorted(path.stem for path in (ROOT / "csrc").glob("*.cu")), architectures()))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        table = [row for found in pool.map(lambda job: rows(*job), jobs) for row in found]
    for row in table:
        solve_report.print_row(row)
    if options.out:
        version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True).stdout.splitlines()[-2]
        about = {"title": "The CUDA kernels, compiled", "threads": 1, "repeats": 1, "compiler": version}
        report = solve_report.provenance() | about | {"tables": {"Kernels by architecture": table}}
        options.out.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        options.out.with_suffix(".md").write_text(solve_report.markdown(report))
    return int(not table or any(row["spilled bytes"] for row in table))


if __name__ == "__main__":
    raise SystemExit(main())
