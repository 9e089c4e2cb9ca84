"""What torch sees of the kernels: graphs, shapes without numbers, gradients, vmap."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import torch
from exact_sketch import PLAN, random
from regressions import make_data
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from gradex_fast import kernels, ops

X, D, W, LENGTHS = random(4, 3, 5), random(4, 3, 6), random(2, 8), torch.tensor([1, 3, 0, 2])
ROWS = torch.arange(12).reshape(4, 3) % 4 - 1
P = ("layer.weight", 7)
SAMPLES = {
    "sketch": (X, D, LENGTHS, 8, *P, "gaussian", 3, None, None),
    "project": (X.flatten(1), 8, *P, "tensorsketch", 15, 5, None, None),
    "sketch_rows": (X, ROWS, 8, *P, "rademacher", None, None),
    "lift": (W, 30, *P, "gaussian", 3, 30, 1, "reference"),
}
FEATURES, MARGINS, POINTER = (torch.from_numpy(array) for array in make_data([5, 17, 9], 5))
MASKS = torch.tensor([[True, False, True], [False, True, True]])


def checked(tensor: object) -> object:
    """A differentiable copy of a factor."""
    floating = isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    return tensor.clone().requires_grad_() if floating else tensor


@pytest.fixture(autouse=True)
def fresh_graphs() -> Iterator[None]:
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("name", SAMPLES)
def test_torch_s_own_checks(name: str) -> None:
    """Schema, fake tensors, autograd's registration, and AOT autograd with sizes that are not known."""
    arguments = SAMPLES[name]
    if name != "sketch_rows":  # it has no gradient
        arguments = tuple(map(checked, arguments))
    torch.library.opcheck(ops.OPERATORS[name], arguments)


def test_torch_s_own_checks_of_solve() -> None:
    arguments = (FEATURES, MARGINS, POINTER, MASKS, None, 0.1, None, [1], 1e-6, 50, None)
    torch.library.opcheck(ops.OPERATORS["solve"], arguments)


def everything(x: torch.Tensor, d: torch.Tensor, w: torch.Tensor, seed: int) -> tuple[torch.Tensor, ...]:
    plan = {"name": "layer", "seed": seed, "dim": 8}
    sketch = kernels.sketch(x, d, lengths=[2] * 4, **plan)
    added = kernels.sketch(x, d, out=torch.ones(len(x), 8), **plan)
    rows = kernels.sketch_rows(x, ROWS, **plan)
    lifted = kernels.lift(w * 2, 30, name="layer", seed=seed)
    found = kernels.solve(FEATURES * 2, MARGINS, [0, 5, 22, 31], MASKS, l2=0.1, always=[1])
    return sketch, added, rows, kernels.project(x.flatten(1), **plan), lifted, found.x, found.loss, found.status


@pytest.mark.parametrize("dynamic", [False, True])
def test_whole_graphs_have_the_same_bits(dynamic: bool) -> None:
    compiled = torch.compile(everything, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for seed in (0, 2**64 - 3, -3):
        for got, expected in zip(compiled(X, D, W, seed), everything(X, D, W, seed), strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_the_default_compiler() -> None:
    compiled = torch.compile(lambda rows: kernels.project(rows, dim=8, **PLAN), fullgraph=True)
    assert torch.equal(compiled(X.flatten(1)), kernels.project(X.flatten(1), dim=8, **PLAN))


def test_numpy_in_a_graph() -> None:
    compiled = torch.compile(lambda rows: kernels.project(rows, dim=8, **PLAN), fullgraph=True, backend="aot_eager")
    got = compiled(X.flatten(1).numpy())
    assert isinstance(got, np.ndarray)
    np.testing.assert_array_equal(got, kernels.project(X.flatten(1).numpy(), dim=8, **PLAN))


def test_a_graph_holds_no_thread_count() -> None:
    graph = make_fx(lambda rows, w: (kernels.project(rows, dim=8, **PLAN), kernels.lift(w, 9, threads=3, **PLAN)))
    calls = [node for node in graph(X.flatten(1), W).graph.nodes if node.op == "call_function"]
    held = {str(node.target): node.args[-2] for node in calls}
    assert held == {"gradex_fast.project.default": None, "gradex_fast.lift.default": 3}


def test_seeds_share_a_graph() -> None:
    """The second one tells torch that seeds change; from then on there is one graph for all."""
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(partial(kernels.lift, W, 9, name="layer"), fullgraph=True, backend=counter)
    for seed in range(5, 11):
        assert torch.equal(compiled(seed=seed), kernels.lift(W, 9, name="layer", seed=seed))
    assert counter.frame_count == 2


def test_a_graph_s_errors_come_when_it_runs_or_is_made() -> None:
    compiled = torch.compile(kernels.sketch, fullgraph=True, backend="eager")
    with pytest.raises(ValueError, match="lengths must be 4 numbers from 0 to 3"):
        compiled(X, D, lengths=LENGTHS + 1, dim=8, **PLAN)
    with pytest.raises(Exception, match=r"must share n, t"):
        compiled(X, D[:3], dim=8, **PLAN)


SHAPES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int, ...], tuple[int, ...]]] = {
    "sketch": (lambda a: kernels.sketch(a, a, dim=8, offset=2**62, **PLAN), (3, 1, 2**17), (3, 8)),
    "project": (lambda a: kernels.project(a, dim=8, offset=2**40, **PLAN), (2, 2**33 + 1), (2, 8)),
    "lift": (lambda a: kernels.lift(a, 2**33 + 1, **PLAN), (2, 8), (2, 2**33 + 1)),
    "hashed": (lambda a: kernels.lift(a, 2**33, distribution="tensorsketch", **PLAN), (1, 8), (1, 2**33)),
    "rows": (
        lambda a: kernels.sketch_rows(a, a.new_zeros(2, 2**17, dtype=torch.long), dim=8, **PLAN),
        (2, 2**17, 2**17),
        (2, 8),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_without_numbers(name: str) -> None:
    """Past 2³² elements: nothing on the way counts them in 32 bits, or makes them."""
    call, given, wanted = SHAPES[name]
    found = {"meta": call(torch.empty(given, dtype=torch.bfloat16, device="meta"))}
    with FakeTensorMode():
        for device in ("cpu", "cuda"):
            found[device] = call(torch.empty(given, dtype=torch.bfloat16, device=device))
    for device, result in found.items():
        assert result.shape == wanted and result.dtype == torch.float32 and result.device.type == device


def test_solve_without_numbers() -> None:
    with FakeTensorMode() as mode:
        found = kernels.solve(*map(mode.from_tensor, (FEATURES, MARGINS, POINTER, MASKS)), l2=0.1)
    real = kernels.solve(FEATURES, MARGINS, POINTER, MASKS, l2=0.1)
    for name in ("x", "loss", "gradient_norm", "iterations", "status"):
        fake, true = getattr(found, name), getattr(real, name)
        assert (fake.shape, fake.dtype, fake.device) == (true.shape, true.dtype, true.device)
    meta = [tensor.to("meta") for tensor in (FEATURES, MARGINS, POINTER, MASKS)]
    with pytest.raises(ValueError, match=r"group_ptr \[n \+ 1\], subsets \[m, n\] do not fit"):
        kernels.solve(*meta[:3], meta[3][:, :2], l2=0.1)
    with pytest.raises(ValueError, match="subsets must be a mask"):
        kernels.solve(*meta[:3], [[0]], l2=0.1)


@pytest.mark.parametrize("distribution", kernels.DISTRIBUTIONS)
def test_gradients(distribution: str) -> None:
    """Against autograd through the dense P that `lift` makes of the unit vectors: float32 rounding apart."""
    plan = {"distribution": distribution, **PLAN}
    p = kernels.lift(torch.eye(8), 30, width=5, **plan).T.double()  # [30, 8]
    kept = (torch.arange(3) < LENGTHS[:, None])[..., None]

    def exact(x, d, rows, w):
        return torch.einsum("nto,ntc->noc", d * kept, x * kept).flatten(1) @ p, rows @ p, w @ p.T

    def fast(x, d, rows, w):
        return (
            kernels.sketch(x, d, lengths=LENGTHS, dim=8, **plan),
            kernels.project(rows, dim=8, width=5, **plan),
            kernels.lift(w, 30, width=5, **plan),
        )

    given = [X, D, random(4, 30), W]
    upstream = [random(4, 8), random(3, 4, 8)[0], random(2, 30)]
    gradients = []
    for dtype, function in ((torch.float64, exact), (torch.float32, fast)):
        inputs = [tensor.to(dtype).requires_grad_() for tensor in given]
        outputs = function(*inputs)
        weighed = [(a * b).sum() for a, b in zip(outputs, upstream, strict=True)]
        gradients.append(torch.autograd.grad(sum(weighed), inputs))
    for true, found in zip(*gradients, strict=True):
        torch.testing.assert_close(found.double(), true, rtol=1e-4, atol=1e-5)


def test_types_of_gradients() -> None:
    x, d = (t.bfloat16().detach().requires_grad_() for t in (X, D))
    kernels.sketch(x, d, dim=8, **PLAN).sum().backward()
    assert x.grad.dtype == d.grad.dtype == torch.bfloat16


def test_what_has_no_gradient() -> None:
    x = X.clone().requires_grad_()
    with pytest.raises(NotImplementedError, match="sketch_rows has no gradient"):
        kernels.sketch_rows(x, ROWS, dim=8, **PLAN).sum().backward()
    total = torch.zeros(4, 8)
    assert not kernels.sketch(x, D, dim=8, out=total, **PLAN).requires_grad
    assert not kernels.solve(FEATURES.clone().requires_grad_(), MARGINS, POINTER, MASKS, l2=0.1).x.requires_grad
    with torch.no_grad():
        assert not kernels.sketch(x, D, dim=8, **PLAN).requires_grad


def test_vmap_has_the_bits_of_a_loop() -> None:
    rows, x, w = random(3, 4, 30), random(4, 3, 2, 5), random(3, 2, 8)
    d, lengths = random(3, 2, 6), torch.tensor([2, 0, 1])
    looked_up = torch.arange(6).reshape(3, 2)
    cases = [
        (lambda a: kernels.project(a, dim=8, **PLAN), (rows,), (0,)),
        (lambda a: kernels.project(a, dim=8, **PLAN), (rows,), (1,)),
        (lambda a: kernels.lift(a, 30, **PLAN), (w,), (0,)),
        (lambda a, b, c: kernels.sketch(a, b, lengths=c, dim=8, **PLAN), (x, d, lengths), (0, None, None)),
        (lambda a, b: kernels.sketch_rows(a, b, dim=8, **PLAN), (x, looked_up), (0, None)),
    ]
    for call, given, places in cases:
        got = torch.vmap(call, in_dims=places)(*given)
        count = next(t.shape[place] for t, place in zip(given, places, strict=True) if place is not None)
        loop = [
            call(*(t if place is None else t.select(place, i) for t, place in zip(given, places, strict=True)))
            for i in range(count)
        ]
        assert torch.equal(got, torch.stack(loop))
