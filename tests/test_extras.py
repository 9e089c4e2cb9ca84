"""What a plain install, which has torch and NumPy alone, can do, and what it says where the extra is needed."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import gradex_fast
from gradex_fast import extras
from gradex_fast.doctor import packages

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
SAID = re.compile(r"needs the extra `pipeline`: pip install 'gradex_fast\[pipeline\]' \(no module named (\w+)\)")
PIPELINE_NAMES = {"Recipe", "load_corpus", "SketchStore", "run", "Run", "read_sketches", "write_sketches"}
APART = {"sklearn", "browser", "docs"}  # of no use to a recipe
WHOLE = {"gradex_fast[pipeline]", "gradex_fast[test,browser,docs]"}
ARGUMENTS = [
    ["demo", "--out", "demo"],
    ["run", "recipe.yaml"],
    ["plan", "recipe.yaml"],
    ["preview", "recipe.yaml"],
    ["compare", "recipe.yaml"],
    ["diagnose", "recipe.yaml"],
    ["export", "run", "--to", "trl"],
    ["recipes"],
]

WITHOUT = """
import sys
class Absent:  # a finder that is asked first
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
sys.path.insert(0, {tests!r})
"""


def without_the_extra(statements: str, folder: Path) -> str:
    """What they print in a process of their own that has none of the extra's modules."""
    roots = {module.split(".")[0] for module, _ in extras.PIPELINE.values()}
    code = WITHOUT.format(absent=roots, tests=str(Path(__file__).parent)) + statements
    paths = str(Path(gradex_fast.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {paths!r})\n{code}"], cwd=folder,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def requirement(line: str) -> str:
    return re.match(r"[\w.-]+(\[\w+\])?", line)[0]


def test_a_plain_install_needs_torch_and_numpy() -> None:
    assert {requirement(line) for line in PROJECT["dependencies"]} == {"numpy", "torch"}
    assert {requirement(line) for line in EXTRAS["pipeline"]} == set(extras.PIPELINE)
    for extra, lines in EXTRAS.items():
        assert extra in APART | {"pipeline"} or WHOLE & set(lines), extra


def test_every_command_says_what_to_install(tmp_path: Path) -> None:
    run = f"""
import contextlib, io, json
from gradex_fast import cli
found = []
for arguments in {ARGUMENTS!r}:
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()) as printed:
        status = cli.main(arguments)
    found.append([status, printed.getvalue(), said.getvalue()])
print(json.dumps(found))
"""
    for arguments, (status, printed, said) in zip(ARGUMENTS, json.loads(without_the_extra(run, tmp_path)), strict=True):
        assert (status, printed) == (1, ""), arguments
        prefix, _, line = said.partition(" ")
        found = SAID.fullmatch(line.rstrip("\n"))
        assert prefix == "gradex-fast" and found, said
        assert found[1] in {module.split(".")[0] for module, _ in extras.PIPELINE.values()}
    assert list(tmp_path.iterdir()) == []


def test_public_names_are_there_or_say_what_to_install(tmp_path: Path) -> None:
    ask = """
import json, gradex_fast
found = {}
for name in gradex_fast.__all__:
    try:
        found[name] = getattr(gradex_fast, name) is None
    except ImportError as error:
        found[name] = str(error)
print(json.dumps(found))
"""
    found = json.loads(without_the_extra(ask, tmp_path))
    assert found.keys() == set(gradex_fast.__all__)
    for name, said in found.items():
        if name in PIPELINE_NAMES:
            prefix, _, line = said.partition(" ")
            assert prefix == f"gradex_fast.{name}" and SAID.fullmatch(line), said
        else:
            assert said is False, f"{name}: {said}"


class Plain(nn.Module):
    """A language model of torch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.norm = nn.Embedding(11, 8), nn.LayerNorm(8)
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 11, bias=False)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        x = self.tokens(input_ids) * attention_mask[..., None]
        return SimpleNamespace(logits=self.head(x + torch.tanh(self.mix(self.norm(x))).cumsum(1)))


def plain_sketches() -> np.ndarray:
    """g [3, 16]; `Sketcher` compares its first batch with plain autograd."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, ids = Plain(), torch.randint(0, 11, (3, 5))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    return gradex_fast.Sketcher(model, dim=16)(batch).g


def test_a_model_of_torch_alone_is_sketched(tmp_path: Path) -> None:
    without_the_extra("import numpy, test_extras; numpy.save('g.npy', test_extras.plain_sketches())", tmp_path)
    assert np.array_equal(np.load(tmp_path / "g.npy"), plain_sketches()) and np.abs(plain_sketches()).min() > 0


def test_an_import_that_fails_for_another_reason_is_not_explained_away() -> None:
    with pytest.raises(ModuleNotFoundError) as stranger:
        importlib.import_module("no_such_package")
    assert extras.needed_for(stranger.value) is None and extras.needed_for(ImportError("broken")) is None
    with pytest.raises(ImportError) as old:
        exec("from transformers import NoSuchName")
    said = extras.needed_for(old.value)
    assert said.startswith("needs the extra `pipeline`: ") and "cannot import name 'NoSuchName'" in said


def test_doctor_finds_no_fault_with_a_plain_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.version

    def version(name: str) -> str:
        if name in extras.PIPELINE:
            raise packages.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(packages, "version", version)
    lines = {line.name: line for line in packages.package_lines()}
    assert not [line for line in lines.values() if line.status == "wrong"] and "transformers" not in lines
    assert lines["pipeline"].status == "note" and "zstandard" in lines["pipeline"].found
    assert lines["pipeline"].advice.endswith("pip install 'gradex_fast[pipeline]'")
