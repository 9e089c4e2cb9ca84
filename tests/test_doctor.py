"""`gradex-fast doctor`: right here, and a line in place of a traceback for everything that can be broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gradex_fast import kernels, native
from gradex_fast.cli import main
from gradex_fast.doctor import machine, packages, selfcheck
from gradex_fast.doctor.line import Line

pytestmark = pytest.mark.usefixtures("one_thread")


def statuses(lines) -> dict[str, Line]:
    return {line.name: line for line in lines}


def test_all_is_right_here(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["right"] is True
    names = {line["name"] for line in found["lines"]}
    assert {"python", "torch", "transformers", "peft", "trl", "bitsandbytes", "cpu", "threads", "cuda device"} <= names
    for kernel in ("sketch", "sketch_rows", "project", "lift", "solve"):
        assert {f"{kernel} (cpu, {each})" for each in native.instruction_sets()} <= names
    line = next(line for line in found["lines"] if line["name"] == "instruction sets")
    assert line["found"].endswith(f"in use: {native.instruction_set()}")


def test_broken_packages_are_lines(tmp_path):
    """In a process of its own, in which neither torch nor transformers can be imported."""
    for name in ("torch", "transformers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise OSError('lib{name}.so is missing\\nmore')\n")
    paths = [str(tmp_path), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "gradex_fast", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    lines = {line.split()[1].rstrip(":"): line for line in done.stdout.splitlines()}
    for name in ("torch", "transformers"):
        assert lines[name].startswith(f"wrong  {name}: ") and f"(OSError: lib{name}.so is missing)" in lines[name]
        assert f"pip install --force-reinstall '{name}>=" in lines[name]
    assert lines["numpy"].startswith("ok") and lines["python"].startswith("ok") and lines["cpu"].startswith("ok")
    assert lines["extension"].startswith("wrong") and lines["kernels"].startswith("wrong  kernels: not checked")


def test_a_missing_and_an_old_package(monkeypatch):
    real = packages.version

    def version(name: str) -> str:
        if name == "peft":
            raise packages.PackageNotFoundError(name)
        return "1.0" if name == "torch" else real(name)

    monkeypatch.setattr(packages, "version", version)
    found = statuses(packages.package_lines())
    assert found["peft"] == Line("peft", "missing", "wrong", "pip install 'peft>=0.18'")
    assert found["torch"].status == "wrong" and "needs >=2.4" in found["torch"].found
    assert found["numpy"].status == "ok"


def test_without_the_extension_or_torch(monkeypatch):
    """None in sys.modules makes an import fail as one of a package that is not there does."""
    monkeypatch.setitem(sys.modules, "gradex_fast.native", None)
    found = statuses(machine.machine_lines())
    assert found["extension"].status == "wrong" and "pip install -e ." in found["extension"].advice
    monkeypatch.setitem(sys.modules, "torch", None)
    assert {"cpu", "extension"} == statuses(machine.machine_lines()).keys() and not machine.cuda_usable()


@pytest.mark.parametrize("kernel", ["sketch", "sketch_rows", "project", "lift"])
def test_a_wrong_kernel_is_found(kernel, monkeypatch):
    right = getattr(kernels, kernel)

    def wrong(*arguments, backend=None, **options):
        found = right(*arguments, backend=backend, **options)
        if backend is None and options["distribution"] == "rademacher":
            found[-1, -1] += 2e-4 * found.abs().max()
        return found

    monkeypatch.setattr(kernels, kernel, wrong)
    found = statuses(selfcheck.kernel_lines(cuda=False))
    for name, line in found.items():
        assert line.status == ("wrong" if name.startswith(f"{kernel} (") else "ok")
    assert "rademacher" in next(line.found for name, line in found.items() if name.startswith(f"{kernel} ("))


def test_a_wrong_solver_and_one_that_raises(monkeypatch):
    losses = kernels.mean_losses
    monkeypatch.setattr(kernels, "mean_losses", lambda *arguments: losses(*arguments) * float("nan"))
    assert selfcheck._line("solve", selfcheck._solve, "cpu").status == "wrong"

    def raising(device: str) -> dict[str, float]:
        raise RuntimeError("no kernel image is available\nmore")

    line = selfcheck._line("sketch (cuda)", raising, "cuda")
    assert line.status == "wrong" and line.found == "RuntimeError: no kernel image is available"
    assert "GRADEX_CUDA_ARCH" in line.advice


@pytest.mark.skipif(torch.cuda.is_available(), reason="says why there is no device where there is none")
def test_why_there_is_no_device(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "has no CUDA" in machine._no_device(torch).found
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(machine, "_DRIVER", tmp_path / "none")
    assert "no NVIDIA driver" in machine._no_device(torch).found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES" in machine._no_device(torch).found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    (tmp_path / "driver").touch()
    monkeypatch.setattr(machine, "_DRIVER", tmp_path / "driver")
    line = machine._no_device(torch)
    assert line.status == "wrong" and "update the driver" in line.advice
    assert machine._built(False, available=True).status == "wrong" and machine._built(False, False).status == "note"
