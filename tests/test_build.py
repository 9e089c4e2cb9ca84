"""What the package loads, links and imports: the layers, and an extension that runs where others do not."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gradex_fast
from gradex_fast import native

PACKAGE, CSRC = Path(gradex_fast.__file__).parent, Path(__file__).parents[1] / "csrc"
EXTENSION = native._native.__file__
# Lowest first. A module imports what is lower, or of its own rank where that is not sealed.
LAYERS = [
    {"_native"},
    {"native", "reference", "arrays", "dispatch"},
    {"arguments", "text_template"},
    {"regression", "tensorsketch"},
    {"backends"},
    {"ops"},
    {"errors", "extras", "modules", "types", "kernels", "sections"},
    {
        "alignment",
        "clustering",
        "constraints",
        "cross_entropy",
        "data_sections",
        "files",
        "gathering",
        "logistic",
        "memory",
        "checkpoints",
        "claims",
        "metrics",
        "moves",
        "newton",
        "overrides",
        "packaged",
        "placement",
        "progress",
        "ranks",
        "recipe",
        "recipe_errors",
        "reporting",
        "rows",
        "runlog",
        "sharpness",
        "tally",
        "terminal",
        "termination",
        "terms",
        "token_text",
        "units",
    },
    {"layers", "head", "interchange", "joint", "matrix", "sharded"},
    {"recognise", "replay", "workspace", "model", "modes", "batch", "fitting", "pieces"},
    {"taps", "losses", "capture", "selfcheck", "preflight", "stopping", "row_pass", "stored", "trainer"},
    {"data", "train", "evaluate", "sketch", "store", "estimate", "select", "report"},
    {
        "flops",
        "footprint",
        "costs",
        "state",
        "accounts",
        "card",
        "search",
        "sketching",
        "finetuning",
        "clusters",
        "outputs",
        "exhibits",
        "summary",
        "rewrite",
        "between",
        "between_show",
        "pipeline",
    },
    {"baselines", "compat", "diagnose"},
    {
        "__main__",
        "bench",
        "cli",
        "commands",
        "demo",
        "doctor",
        "export",
        "finished_commands",
        "plan",
        "preview",
        "run_sketches",
        "sketches_command",
    },
]
STAGES = next(layer for layer in LAYERS if "sketch" in layer)
SEALED = set().union(*LAYERS[:7], STAGES)
ONLY = {
    "native": {"_native"},
    "reference": set(),
    "arrays": set(),
    "dispatch": set(),
    "arguments": {"arrays", "reference"},
    "regression": {"arrays", "native", "arguments"},
    "tensorsketch": {"reference"},
    "backends": {"native", "reference", "arguments", "tensorsketch"},
    "ops": {"backends", "regression"},
    "kernels": {"arguments", "arrays", "backends", "dispatch", "ops", "regression"},
}
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}


def imported_modules(path: Path) -> set[str]:
    """The gradex_fast modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: imports are written in full"
            whole = node.module == "gradex_fast"
            found |= {f"gradex_fast.{alias.name}" for alias in node.names} if whole else {node.module or ""}
    return {name.split(".")[1] for name in found if name.startswith("gradex_fast.")}


SOURCES = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_imports_point_down(source: Path) -> None:
    module = source.parts[0].removesuffix(".py")
    assert module in RANK, f"{module} has no layer: give it one in LAYERS, as low as it can be"
    for other in imported_modules(PACKAGE / source) - {module}:
        assert other in RANK, f"{source} imports {other}, which has no layer"
        assert other != "_native" or module == "native", f"{source}: only native.py may import _native"
        assert other in ONLY.get(module, RANK), (
            f"{source} may import {ONLY[module] or 'nothing of gradex_fast'}, not {other}"
        )
        beside = RANK[other] == RANK[module] and module not in SEALED
        assert RANK[other] < RANK[module] or beside, f"{source} imports {other}, which is not below it"


def loaded_by(statement: str) -> set[str]:
    """Top-level names in sys.modules of a fresh interpreter after `statement`."""
    code = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("statement", ["import gradex_fast", "import gradex_fast.kernels"])
def test_kernels_load_neither_models_nor_data(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "gradex_fast" in loaded
    assert not loaded & {"transformers", "peft", "datasets", "accelerate", "tokenizers", "pydantic", "rich", "pyarrow"}
    if statement == "import gradex_fast":
        assert "torch" not in loaded


@pytest.mark.parametrize("path", sorted(CSRC.glob("*.*")), ids=lambda path: path.name)
def test_csrc_knows_no_python_and_little_of_itself(path: Path) -> None:
    includes = re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)', path.read_text(encoding="utf-8"), re.MULTILINE)
    foreign = [name for name in includes if re.match(r"pybind11|Python\.h|torch|ATen|c10|numpy|omp\.h", name)]
    assert not foreign or path.name == "bindings.cpp", f"{path.name} includes {foreign}"
    cuda = [name for name in includes if name.startswith("cuda") or name == "check.h"]
    assert not cuda or path.suffix == ".cu" or path.name == "check.h", f"{path.name} includes {cuda}"
    own = {name for name in includes if (CSRC / name).exists()}
    low = {"target.h": set(), "bits.h": {"target.h"}, "philox.h": {"target.h"}, "vector_math.h": {"target.h"}}
    allowed = {**low, "gaussian.h": {"philox.h", "bits.h"}}
    assert own <= allowed.get(path.name, own), f"{path.name} includes {own - allowed[path.name]}"


def output_of(tool: str, *arguments: str) -> str:
    if not (sys.platform == "linux" and shutil.which(tool)):
        pytest.skip(f"{tool} is not here")
    return subprocess.run([tool, *arguments], capture_output=True, text=True, check=True).stdout


def test_extension_links_no_framework() -> None:
    needed = re.findall(r"\(NEEDED\).*\[(.+?)\]", output_of("readelf", "-d", EXTENSION))
    assert any(name.startswith("libc.") for name in needed)
    strangers = [name for name in needed if re.match(r"lib(torch|c10|cudart|cuda|gomp|iomp|omp|python)", name)]
    assert not strangers, f"linked: {needed}"


def test_vector_code_is_only_where_it_was_asked_for() -> None:
    """An inline function compiled for AVX must not stand in for the portable one: it would stop an older machine."""
    if "avx2" not in native.instruction_sets():
        pytest.skip("not an x86 machine with AVX2")
    function, using = "", {"avx2": set(), "avx512": set(), "avx512bf16": set(), "other": set()}
    for line in output_of("objdump", "-dC", "--no-show-raw-insn", EXTENSION).splitlines():
        if line.endswith(">:"):
            function = line
        elif re.search(r":\tv[a-z]|%[xyz]mm(1[6-9]|2\d|3[01])|%k[1-7]", line):
            named = re.search(r"gradex::(avx2|avx512(?:bf16)?)::", function)
            using[named[1] if named else "other"].add(function)
    assert using["avx512"] and using["avx2"], "the disassembly was not understood"
    assert not using["other"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_call_without_a_gpu_says_so() -> None:
    if not native.CUDA_BUILT:
        with pytest.raises(RuntimeError, match="built without CUDA"):
            native._cuda("lift_cuda")
        return
    lift = native._native.LiftArguments(0, 0, (1, 1, 1), 0, 0, 1.0, 0)
    plan = native._native.SketchPlan(0, 0, (1, 1), 0, 1.0, 0)
    sketch = native._native.SketchArguments(plan, (0, 0, 0), (1, 1, 1), 0, (0, 0))
    for call, arguments in [(native._native.lift_cuda, lift), (native._native.sketch_cuda, sketch)]:
        with pytest.raises(RuntimeError, match=r"cudaError(NoDevice|InsufficientDriver)"):
            call(arguments, 0, 0)
