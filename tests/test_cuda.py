"""What only a GPU has: streams, graphs, several devices, and whole models on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from exact_sketch import PLAN, random
from tiny import MODELS, random_batch

from gradex_fast import kernels, native
from gradex_fast.sketch import Sketcher

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not (native.CUDA_BUILT and torch.cuda.is_available()), reason="no CUDA"),
]
Inputs = dict[str, torch.Tensor]


def inputs(device: str = "cuda", shift: int = 0) -> Inputs:
    tensors = {"x": random(17, 33, 64 + shift)[..., :64], "d": random(17, 33, 16 + shift)[..., :16]}
    tensors |= {"w": random(3, 40 + shift)[:, :40], "rows": torch.arange(17 * 33).reshape(17, 33) % (9 + shift) - 1}
    tensors["lengths"] = torch.arange(17) + shift
    return {name: tensor.contiguous().to(device) for name, tensor in tensors.items()}


CALLS: dict[str, Callable[[Inputs], torch.Tensor]] = {
    "sketch": lambda i: kernels.sketch(i["x"], i["d"], dim=40, **PLAN),
    "lengths": lambda i: kernels.sketch(i["x"], i["d"], dim=40, lengths=i["lengths"], **PLAN),
    "project": lambda i: kernels.project(i["x"].flatten(1), dim=40, **PLAN),
    "rows": lambda i: kernels.sketch_rows(i["x"], i["rows"], dim=40, **PLAN),
    "lift": lambda i: kernels.lift(i["w"], 1000, **PLAN),
}


@pytest.mark.parametrize("call", CALLS)
def test_same_bits_run_after_run(call: str) -> None:
    given = inputs()
    first = CALLS[call](given)
    assert all(torch.equal(CALLS[call](given), first) for _ in range(20))


@pytest.mark.parametrize("call", CALLS)
def test_work_is_on_the_current_stream(call: str) -> None:
    """Inputs that an earlier kernel of the same stream has not written yet."""
    given, expected, stream = inputs(), CALLS[call](inputs(shift=1)), torch.cuda.Stream()
    late = inputs(shift=1)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        for name, tensor in given.items():
            tensor.copy_(late[name])
        found = CALLS[call](given)
    stream.synchronize()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("call", CALLS)
def test_nothing_waits_and_a_graph_can_hold_it(call: str) -> None:
    """A synchronisation while a graph is captured is an error."""
    given, late = inputs(), inputs(shift=1)
    CALLS[call](given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = CALLS[call](given)
    for values in (late, inputs()):
        for name, tensor in given.items():
            tensor.copy_(values[name])
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(found, CALLS[call](values))


@pytest.mark.parametrize("call", CALLS)
def test_a_compiled_graph_has_the_same_bits(call: str) -> None:
    given = inputs()
    compiled = torch.compile(CALLS[call], fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(given), CALLS[call](given))


def test_gradients_are_those_of_the_cpu() -> None:
    found = []
    for device in ("cpu", "cuda"):
        given = {name: t.requires_grad_() if t.is_floating_point() else t for name, t in inputs(device).items()}
        total = sum(CALLS[call](given).square().sum() for call in ("lengths", "project", "lift"))
        gradients = torch.autograd.grad(total, [given["x"], given["d"], given["w"]])
        found.append([gradient.cpu() for gradient in gradients])
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert abs(on_gpu - on_cpu).max() <= 1e-4 * abs(on_cpu).max()


def test_solutions_are_on_the_features_device() -> None:
    data = random(9, 4), random(9), torch.tensor([0, 4, 9]), torch.tensor([[True, False], [True, True]])
    expected, found = (kernels.solve(*(t.to(device) for t in data), l2=0.1) for device in ("cpu", "cuda"))
    for name in ("x", "loss", "gradient_norm", "status"):
        assert getattr(found, name).is_cuda and torch.equal(getattr(found, name).cpu(), getattr(expected, name))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
@pytest.mark.parametrize("call", CALLS)
def test_every_device_of_a_process(call: str) -> None:
    found = [CALLS[call](inputs(f"cuda:{index}")) for index in range(2)]
    assert torch.cuda.current_device() == 0
    assert found[1].device.index == 1 and torch.equal(found[0].cpu(), found[1].cpu())


def test_factors_on_two_devices_are_refused() -> None:
    given = inputs()
    with pytest.raises(ValueError, match=r"must share n, t and device.*on cuda:0.*on cpu"):
        kernels.sketch(given["x"], given["d"].cpu(), dim=8, **PLAN)


@pytest.mark.parametrize("distribution", kernels.DISTRIBUTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_sketches_that_it_has_on_the_cpu(name: str, distribution: str) -> None:
    model, batch = MODELS[name](), random_batch(name)
    expected = Sketcher(model, dim=40, distribution=distribution)(batch)
    sketcher = Sketcher(model.cuda(), dim=40, distribution=distribution)
    found, again = sketcher(batch), sketcher(batch)
    assert abs(found.g - expected.g).max() <= 1e-4 * abs(expected.g).max()
    assert abs(found.margin - expected.margin).max() <= 1e-4
    assert distribution == "tensorsketch" or (found.g == again.g).all()
