"""The contract of the kernels beyond their values: outputs, bits, 64-bit addresses, errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import defaults
import numpy as np
import pytest
import torch
from conftest import Place
from exact_sketch import PLAN, assert_sketch, random

from gradex_fast import kernels, native

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def test_numpy_in_numpy_out(cpu: Place) -> None:
    x, d = random(5, 17, 8), random(5, 17, 6)
    got = kernels.sketch(x.numpy()[:, :, ::2], d.double().numpy()[:, :, 1:], dim=5, backend=cpu.backend, **PLAN)
    assert isinstance(got, np.ndarray)
    assert_sketch(got, x[:, :, ::2], d[:, :, 1:], dim=5)
    assert isinstance(kernels.lift(got, 20, **PLAN), np.ndarray)
    assert isinstance(kernels.project(x[0].numpy(), dim=3, **PLAN), np.ndarray)


def test_out_is_added_to(place: Place) -> None:
    x, d, start = random(5, 3, 17), random(5, 3, 9), 100 * random(5, 5)
    out = start.to(place.device, copy=True)
    plan = {"dim": 5, "backend": place.backend, **PLAN}
    assert kernels.sketch(x.to(place.device), d.to(place.device), out=out, **plan) is out
    assert_sketch(out, x, d, dim=5, start=start.double().numpy())


def test_out_may_be_numpy(cpu: Place) -> None:
    x, d, out = random(5, 3, 17).numpy(), random(5, 3, 9).numpy(), np.full((5, 5), 7, np.float32)
    assert np.shares_memory(kernels.sketch(x, d, dim=5, out=out, **PLAN), out)
    assert_sketch(out, x, d, dim=5, start=7.0)


def test_bits_do_not_depend_on_threads_or_batch(compiled: Place) -> None:
    x, d = random(9, 5, 101).to(compiled.device), random(9, 5, 64).to(compiled.device)
    plan = {"dim": 37, "backend": compiled.backend, **PLAN}
    whole = kernels.sketch(x, d, threads=1, **plan)
    for threads in (2, 3, 7, 200):
        assert torch.equal(kernels.sketch(x, d, threads=threads, **plan), whole), f"{threads} threads"
    for size in (1, 2, 5):
        parts = [kernels.sketch(x[i : i + size], d[i : i + size], **plan) for i in range(0, 9, size)]
        assert torch.equal(torch.cat(parts), whole), f"batches of {size}"


def test_torch_defaults_do_not_matter() -> None:
    defaults.check(PLAN)


@pytest.mark.parametrize("wide", ["inputs", "grads"])
def test_samples_past_2_to_the_33_elements(cpu: Place, tmp_path: Path, wide: str) -> None:
    """Sample 1 starts past 2³³ elements and 2³⁴ bytes of a sparse file; one token of each sample is touched."""
    features = 2**16
    shape = (2, 2**33 // features + 1, features)
    path = tmp_path / "sparse"
    try:
        large = np.memmap(path, np.float16, "w+", shape=shape)
    except OSError as error:
        pytest.skip(f"no sparse file of {2 * np.prod(shape) >> 30} GiB here: {error}")
    try:
        rows = random(2, 1, features, dtype=torch.float16)
        large[:, :1] = rows
        narrow = random(*shape[:2], 1)
        pair, small = (torch.from_numpy(large), narrow), (rows, narrow[:, :1])
        pair, small = (pair, small) if wide == "inputs" else (pair[::-1], small[::-1])
        got = kernels.sketch(*pair, lengths=[1, 1], dim=8, **PLAN)
        assert torch.equal(got, kernels.sketch(*small, dim=8, **PLAN))
    finally:
        path.unlink()


@pytest.mark.cuda
@pytest.mark.skipif(not (native.CUDA_BUILT and torch.cuda.is_available()), reason="no CUDA")
def test_samples_past_2_to_the_33_elements_on_cuda() -> None:
    shape = (2, 2**17 + 1, 2**16)
    if torch.cuda.mem_get_info()[0] < 40 << 30:
        pytest.skip("less than 40 GiB of free GPU memory")
    rows, narrow = random(2, 1, 2**16, dtype=torch.float16).cuda(), random(*shape[:2], 1).cuda()
    large = torch.zeros(shape, dtype=torch.float16, device="cuda")
    large[:, :1] = rows
    for pair in [(large, narrow), (narrow, large)]:
        small = [tensor[:, :2] for tensor in pair]  # not one token: of that no products are summed
        got = kernels.sketch(*pair, lengths=[1, 1], dim=8, **PLAN)
        assert torch.equal(got, kernels.sketch(*small, lengths=[1, 1], dim=8, **PLAN))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": random(2, 3)}, r"inputs \[n, t, p\] and grads \[n, t, q\].*float32 \[2, 3\] on cpu"),
        ({"inputs": random(3, 3, 4)}, r"must share n, t.*\[3, 3, 4\].*\[2, 3, 5\]"),
        ({"grads": random(2, 4, 5)}, r"must share n, t.*\[2, 3, 4\].*\[2, 4, 5\]"),
        ({"inputs": random(2, 3, 4).to("meta")}, r"must share n, t and device: .* on meta and .* on cpu"),
        ({"grads": random(2, 3, 5).to("meta")}, "must share n, t and device.*on meta"),
        ({"lengths": [3]}, "lengths must be 2 numbers from 0 to 3"),
        ({"lengths": [3, 4]}, "lengths must be 2 numbers from 0 to 3"),
        ({"lengths": [-1, 3]}, "lengths must be 2 numbers from 0 to 3"),
        ({"dim": 0}, "dim must be 1 or more, got 0"),
        ({"distribution": "cauchy"}, r"distribution must be one of .*'gaussian'.*got 'cauchy'"),
        ({"backend": "tpu"}, "backend must be one of .*got 'tpu'"),
        ({"backend": "cuda"}, "backend 'cuda' cannot read tensors on cpu"),
        ({"offset": -1}, "offset must be 0 or more, got -1"),
        ({"threads": 0}, "threads must be 1 or more, got 0"),
        ({"out": torch.zeros(2, 9)}, r"out must be contiguous float32 \[2, 8\] on cpu, got torch.float32 \[2, 9\]"),
        ({"out": torch.zeros(2, 8).double()}, "out must be contiguous float32"),
        ({"out": torch.zeros(8, 2).T}, "out must be contiguous float32"),
        ({"out": torch.zeros(2, 8, device="meta")}, "out must be contiguous float32.* on cpu, got .* on meta"),
    ],
)
def test_wrong_arguments_are_named(change: dict, message: str) -> None:
    arguments = {"inputs": random(2, 3, 4), "grads": random(2, 3, 5), "dim": 8, **PLAN, **change}
    with pytest.raises(ValueError, match=message):
        kernels.sketch(arguments.pop("inputs"), arguments.pop("grads"), **arguments)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_fewer_threads_than_asked_for() -> None:
    """Where the machine gives no more threads, those that run do all the work."""
    code = """
import resource, torch
from gradex_fast import kernels
x, d, plan = torch.ones(3, 4, 101), torch.ones(3, 4, 101), {"name": "w", "seed": 0, "dim": 8}
one = kernels.sketch(x, d, threads=1, **plan)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20),) * 2)  # room for about four stacks
assert torch.equal(kernels.sketch(x, d, threads=60, **plan), one)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux which runtime torch has loaded")
def test_a_fork_goes_on_without_torch_s_threads() -> None:
    """Kernels run on torch's team, which a child of a fork does not have: there it would wait for ever."""
    code = """
import os, torch
torch.set_num_threads(2)
from gradex_fast import kernels, native
assert native.SHARES_TORCH_THREADS
x, d, plan = torch.ones(3, 4, 768), torch.ones(3, 4, 101), {"name": "w", "seed": 0, "dim": 8}
two = kernels.sketch(x, d, threads=2, **plan)
if (child := os.fork()) == 0:
    os._exit(0 if torch.equal(kernels.sketch(x, d, threads=2, **plan), two) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
