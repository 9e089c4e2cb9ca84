"""The CPU kernels under the sanitizers: builds `sanitize.cpp` with csrc/ and runs it.

    python tests/sanitize.py
    python tests/sanitize.py --only thread --instruction-sets avx2 avx512bf16

One line per run; what is found is on stderr and makes the exit status 1. Without --instruction-sets all that run here
are run. The compiler is $CXX, else c++; g++ can look for pointers that leave their array as well:

    CXX="g++ -fsanitize=pointer-compare,pointer-subtract" python tests/sanitize.py --only address

Where the thread sanitizer ends with "unexpected memory mapping", `setarch -R python tests/sanitize.py` helps.
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
BUILDS = (("thread",), ("address", "undefined"))  # what one program can have at once
CXX = shlex.split(os.environ.get("CXX", "c++"))
FLAGS = ["-O1", "-g1", "-fno-omit-frame-pointer", "-D_GLIBCXX_ASSERTIONS", "-fno-sanitize-recover=all", "-pthread"]
OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:detect_invalid_pointer_pairs=2"
    ":malloc_fill_byte=255:max_malloc_fill_size=1000000000",  # new memory holds NaN
    "TSAN_OPTIONS": "halt_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
JOBS = 2


def setup_tables() -> SimpleNamespace:
    """The constants of setup.py, which builds when it is imported."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id.isupper()]
    tables: dict = {}
    exec(compile(tree, "setup.py", "exec"), tables)
    return SimpleNamespace(**tables)


def sources(wanted: Sequence[str]) -> dict[str, list[str]]:
    """Object name -> the compiler's arguments, for all instruction sets or those that are `wanted`."""
    tables, x86 = setup_tables(), platform.machine().lower() in ("x86_64", "amd64")
    flags = [*tables.CXX_FLAGS, *FLAGS, f"-I{CSRC}", *(["-DGRADEX_X86"] if x86 else [])]
    found = {"sanitize": [*flags, str(ROOT / "tests" / "sanitize.cpp")]}
    found |= {stem: [*flags, str(CSRC / f"{stem}.cpp")] for stem in tables.ONCE if stem != "bindings"}
    for stem, names in tables.PER_INSTRUCTION_SET.items():
        for name in needed(wanted or names, names, list(tables.INSTRUCTION_SETS)) if x86 else names[:1]:
            of_set = [*tables.INSTRUCTION_SETS[name], f"-DGRADEX_ISA={name}"]
            found[f"{stem}.{name}"] = [*flags, *of_set, str(CSRC / f"{stem}.cpp")]
    return found


def needed(wanted: Sequence[str], names: Sequence[str], order: Sequence[str]) -> list[str]:
    """Those of `names` that the instruction sets `wanted` use: their own, or the next below."""
    used = {[name for name in names if order.index(name) <= order.index(one)][-1] for one in wanted}
    return [name for name in names if name in used]


def build(folder: Path, sanitizers: Sequence[str], wanted: Sequence[str]) -> Path:
    """The program. What an instruction set that is not `wanted` would call stays null."""
    folder.mkdir(parents=True, exist_ok=True)
    compiler = [*CXX, f"-fsanitize={','.join(sanitizers)}"]
    jobs = {folder / f"{name}.o": arguments for name, arguments in sources(wanted).items()}
    with ThreadPoolExecutor(JOBS) as pool:  # the last of the jobs take longest, and go first
        done = pool.map(lambda job: subprocess.run([*compiler, *job[1], "-c", "-o", job[0]]), reversed(jobs.items()))
        if any(process.returncode for process in done):
            raise SystemExit(f"{folder.name}: a source was not compiled")
    missing = ["-Wl,--unresolved-symbols=ignore-all"] if wanted else []
    program = folder / "sanitize"
    if subprocess.run([*compiler, *jobs, "-pthread", *missing, "-o", program]).returncode:
        raise SystemExit(f"{folder.name}: the program was not linked")
    return program


def why_not(sanitizers: Sequence[str]) -> str | None:
    """Why nothing can be built, or run, with these sanitizers here."""
    with tempfile.TemporaryDirectory() as folder:
        source, program = Path(folder, "nothing.cpp"), Path(folder, "nothing")
        source.write_text("int main() {}\n", encoding="utf-8")
        command = [*CXX, f"-fsanitize={','.join(sanitizers)}", source, "-o", program]
        for step in (command, [program]):
            try:
                done = subprocess.run(step, capture_output=True, text=True, env=os.environ | OPTIONS)
            except OSError as error:
                return str(error)
            if done.returncode:
                return f"{Path(step[0]).name} with -fsanitize={','.join(sanitizers)}: {done.stderr.strip()[-500:]}"
    return None


def run(program: Path, sanitizers: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether it finds nothing."""
    began = time.monotonic()
    done = subprocess.run([program, *wanted], stdout=subprocess.PIPE, text=True, env=os.environ | OPTIONS)
    said, took = done.stdout.strip() or "stopped", time.monotonic() - began
    print(f"{', '.join(sanitizers)}: {said}, exit status {done.returncode}, {took:.0f} s", flush=True)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [name for sanitizers in BUILDS for name in sanitizers]
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    parser.add_argument("--instruction-sets", nargs="+", choices=setup_tables().INSTRUCTION_SETS, default=[])
    parser.add_argument("--build", type=Path, help="folder for objects and programs; default: a temporary one")
    options = parser.parse_args()
    clean = True
    with tempfile.TemporaryDirectory() as temporary:
        for together in BUILDS:
            if sanitizers := [name for name in together if name in options.only]:
                folder = (options.build or Path(temporary)) / "-".join(sanitizers)
                program = build(folder, sanitizers, options.instruction_sets)
                clean &= run(program, sanitizers, options.instruction_sets)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
