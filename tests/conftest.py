"""Where a kernel can run, as fixtures: the reference, the CPU by instruction set, CUDA, its kernels on the CPU."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from exact_sketch import MATRIX_UNIT

from gradex_fast import native

torch.set_num_threads(1)  # the models are so small that a second thread only waits


def pytest_collection_finish() -> None:
    """What the imports made stays: without this, the garbage collection that starts a Trainer reads all of it."""
    gc.freeze()


@dataclass(frozen=True)
class Place:
    """A backend and the device whose tensors it reads."""

    backend: str
    device: str


def _reason_without_cuda() -> str | None:
    if not native.CUDA_BUILT:
        return "built without CUDA"
    return None if torch.cuda.is_available() else "torch sees no CUDA device"


_NO_CUDA = _reason_without_cuda()
CPU = [f"cpu-{name}" for name in native.instruction_sets()]
CUDA = pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(bool(_NO_CUDA), reason=str(_NO_CUDA))])


def _open(name: str) -> Iterator[Place]:
    backend, _, instruction_set = name.partition("-")
    before = MATRIX_UNIT.set(backend in ("cuda", "lanes"))
    with native.using_instruction_set(instruction_set or native.instruction_set()):
        yield Place(backend, "cuda" if backend == "cuda" else "cpu")
    MATRIX_UNIT.reset(before)


@pytest.fixture(params=["reference", *CPU, "lanes", CUDA])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Every backend, the CPU once for each instruction set that this machine has."""
    yield from _open(request.param)


@pytest.fixture(params=[*CPU, "lanes", CUDA])
def compiled(request: pytest.FixtureRequest) -> Iterator[Place]:
    """`place` without the reference."""
    yield from _open(request.param)


@pytest.fixture(params=CPU)
def cpu(request: pytest.FixtureRequest) -> Iterator[Place]:
    """`place` on the CPU alone."""
    yield from _open(request.param)


@pytest.fixture
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.empty gives NaN: a kernel that reads memory before it wrote there is found out."""
    empty = torch.empty

    def poisoned(*size: int, **options: object) -> torch.Tensor:
        tensor = empty(*size, **options)
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models and rows for whole runs; read only."""
    from runs import write_inputs

    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A second thread costs a tiny model more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
