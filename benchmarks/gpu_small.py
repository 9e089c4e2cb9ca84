"""The kernels on small awkward shapes against the reference: for compute-sanitizer, which makes everything slow.

    compute-sanitizer --tool memcheck python benchmarks/gpu_small.py

Every memory that torch hands out is full of NaN, and so is what a kernel must not read: tokens past a sample's length,
the rows around an output. Each call is made twice and must give the same bits. Exit status 1: something is not right.
Everything is made and compared on the CPU, so that the device runs hardly any kernels but these.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from gradex_fast import kernels

SIZES = (0, 1, 5, 17, 101)
SAMPLES, TOKENS, DIMS = (1, 5, 17, 0, 3), (17, 1, 101, 5, 0, 33, 64), (17, 101, 130)
"""They take turns; no two of the counts, and the 8 pairs of types and distribution, have a common divisor."""

KINDS = (
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
    (torch.bfloat16, torch.float32),
)
"""Of inputs and of output gradients."""

ERROR = 1e-3
"""‖out - ref‖ / ‖ref‖ at most, whatever the type."""

NAN = float("nan")
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """inputs [n, t, p], grads [n, t, q] of two types; which P."""

    n: int
    t: int
    p: int
    q: int
    dim: int
    kinds: tuple[torch.dtype, torch.dtype]
    distribution: str

    @property
    def plan(self) -> dict:
        return {"name": "weight", "seed": 3, "distribution": self.distribution}

    def tensors(self) -> Tensors:
        """On the CPU; inputs and grads are NaN past each sample's length."""
        lengths = torch.arange(self.n) * 7 % (self.t + 1)
        past = torch.arange(self.t)[None, :, None] >= lengths[:, None, None]
        x, d = (
            torch.randn(self.n, self.t, w).masked_fill(past, NAN).to(kind)
            for w, kind in zip((self.p, self.q), self.kinds, strict=True)
        )
        values, rows = torch.randn(self.n, self.t, self.p).to(self.kinds[0]), torch.randint(-1, 6, (self.n, self.t))
        dense, weights = torch.randn(self.n, self.p * self.q).to(self.kinds[0]), torch.randn(self.n, self.dim)
        made = {"inputs": x, "grads": d, "lengths": lengths, "values": values, "rows": rows}
        return {**made, "dense": dense, "weights": weights}


def cases() -> Iterator[Case]:
    """Every p, q, pair of types and distribution, the sizes shuffled: time may end before all had their turn."""
    samples, tokens, dims = (itertools.cycle(each) for each in (SAMPLES, TOKENS, DIMS))
    for p, q in random.Random(0).sample(list(itertools.product(SIZES, SIZES)), len(SIZES) ** 2):
        for kinds, distribution in itertools.product(KINDS, ("gaussian", "rademacher")):
            yield Case(next(samples), next(tokens), p, q, next(dims), kinds, distribution)


def calls(case: Case) -> dict[str, Callable[..., torch.Tensor]]:
    """The four entries, as functions of tensors and a backend."""
    sketched, lines = {**case.plan, "dim": case.dim}, case.p * case.q
    return {
        "sketch": lambda t, b: _guarded(t, case.dim, lambda out: _sketch(t, sketched, out, b)),
        "project": lambda t, b: kernels.project(t["dense"], offset=7, backend=b, **sketched),
        "sketch_rows": lambda t, b: kernels.sketch_rows(t["values"], t["rows"], backend=b, **sketched),
        "lift": lambda t, b: kernels.lift(t["weights"], lines, offset=7, backend=b, **case.plan),
    }


def _sketch(tensors: Tensors, plan: dict, out: torch.Tensor, backend: str | None) -> None:
    x, d, lengths = (tensors[name] for name in ("inputs", "grads", "lengths"))
    kernels.sketch(x, d, lengths=lengths, out=out, backend=backend, **plan)


def _guarded(tensors: Tensors, dim: int, add: Callable[[torch.Tensor], None]) -> torch.Tensor:
    """What `add` adds to zeros [n, dim] between two rows of NaN, which must stay."""
    whole = torch.full((len(tensors["inputs"]) + 2, dim), NAN)
    whole[1:-1] = 0
    whole = whole.to(tensors["inputs"].device)
    add(whole[1:-1])
    found = whole.cpu()
    if not found[[0, -1]].isnan().all():
        raise AssertionError("it wrote outside its output")
    return found[1:-1]


def complaint(call: Callable[..., torch.Tensor], tensors: Tensors, device: str) -> str | None:
    """What is wrong with one entry's result; None if nothing is."""
    placed = {name: tensor.to(device) for name, tensor in tensors.items()}
    results = []
    for _ in range(2):
        _poison(device)
        results.append(call(placed, None).cpu())
    exact = call(tensors, "reference").double()
    if not torch.equal(*results):
        return "two runs have different bits, or NaN"
    error, size = float((results[0].double() - exact).norm()), float(exact.norm())
    return None if error <= ERROR * size else f"error {error:.1e} of {size:.1e}"


def poison_torch() -> None:
    """From now on torch's ways to get memory give NaN, or -1 in integers."""
    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        setattr(owner, name, _poisoned(getattr(owner, name)))


def _poisoned(empty: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def poisoned(*arguments, **options) -> torch.Tensor:
        tensor = empty(*arguments, **options)
        value = NAN if tensor.is_floating_point() else 255 if tensor.dtype == torch.uint8 else -1
        return tensor.fill_(value)

    return poisoned


def _poison(device: str) -> None:
    """What torch's allocator has in store on the device is full of NaN too."""
    if device == "cuda" and not os.environ.get("PYTORCH_NO_CUDA_MEMORY_CACHING"):
        for size in (100, 10_000, 250_000, 1 << 22):
            torch.full((size,), NAN, device=device)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seconds", type=float, default=600, help="after which no other case starts")
    options = parser.parse_args()
    torch.manual_seed(0)
    poison_torch()
    began, done, wrong, everything = time.monotonic(), 0, 0, list(cases())
    for case in everything:
        if time.monotonic() - began > options.seconds:
            break
        tensors, done = case.tensors(), done + 1
        for entry, call in calls(case).items():
            try:
                said = complaint(call, tensors, options.device)
            except Exception as error:
                said = f"{type(error).__name__}: {error}".splitlines()[0]
            if said:
                wrong += 1
                print(f"{entry}: {said}; {case}", flush=True)
    print(f"{done} of {len(everything)} cases, {wrong} complaints", flush=True)
    return 1 if wrong or not done else 0


if __name__ == "__main__":
    raise SystemExit(main())
