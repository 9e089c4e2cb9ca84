"""Arrays of any library go in, and results come out where the inputs live."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from exact_sketch import PLAN, random
from regressions import all_and_random, assert_same_bits, make_data

from gradex_fast import kernels

X, D, W = random(5, 3, 17), random(5, 3, 9), random(2, 7)
ROWS = torch.arange(15).reshape(5, 3) % 4 - 1
CALLS: dict[str, tuple[Callable[..., Any], list[torch.Tensor]]] = {
    "sketch": (lambda x, d: kernels.sketch(x, d, dim=7, **PLAN), [X, D]),
    "lengths": (
        lambda x, d, lengths: kernels.sketch(x, d, dim=7, lengths=lengths, **PLAN),
        [X, D, torch.arange(5) % 4],
    ),
    "project": (lambda rows: kernels.project(rows, dim=7, **PLAN), [X.flatten(1)]),
    "sketch_rows": (lambda values, rows: kernels.sketch_rows(values, rows, dim=7, **PLAN), [X, ROWS]),
    "lift": (lambda weights: kernels.lift(weights, 40, **PLAN), [W]),
}


class Foreign:
    """Another library's array: nothing but DLPack's two methods, without its later arguments."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def __dlpack__(self, stream: int | None = None) -> object:
        return self._tensor.__dlpack__(stream=stream)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor.__dlpack_device__()


def read_only(tensor: torch.Tensor) -> np.ndarray:
    array = tensor.numpy().copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("call", CALLS)
def test_every_kind_of_array(call: str) -> None:
    run, tensors = CALLS[call]
    expected = run(*tensors)
    kinds = {
        np.ndarray: [read_only, lambda t: np.flip(np.flip(t.numpy(), 0).copy(), 0)],
        torch.Tensor: [Foreign, torch.nn.Parameter if all(t.is_floating_point() for t in tensors) else torch.clone],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind, makers in kinds.items():
            for make in makers:
                found = run(*map(make, tensors))
                assert type(found) is kind
                assert torch.equal(torch.as_tensor(found).detach(), expected)


def test_a_memory_map_that_cannot_be_written(tmp_path) -> None:
    np.save(tmp_path / "rows.npy", X.flatten(1).numpy())
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    np.testing.assert_array_equal(kernels.project(mapped, dim=7, **PLAN), kernels.project(X.flatten(1), dim=7, **PLAN))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (read_only(torch.zeros(5, 7)), "out must be writeable, got a read-only NumPy array"),
        (Foreign(torch.zeros(5, 7)), "out must be a tensor or a NumPy array, which can be written to, got Foreign"),
        ([[0.0] * 7] * 5, "out must be a tensor or a NumPy array, which can be written to, got list"),
    ],
)
def test_what_cannot_be_written_to_is_no_output(out: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernels.sketch(X.numpy(), D.numpy(), dim=7, out=out, **PLAN)


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"arrays must be real, got torch.complex64 \[2, 7\] on cpu"):
        kernels.lift(W.to(torch.complex64), 40, **PLAN)


def test_solutions_are_where_the_features_are() -> None:
    data, masks, weights = make_data([5, 17, 9], 5), all_and_random(3), np.arange(31.0)
    expected = kernels.solve(*data, masks, l2=0.1, weights=weights)
    losses = kernels.row_losses(expected.x, *data[:2]), kernels.mean_losses(expected.x, *data[:2])
    assert {type(a) for a in (expected.x, expected.loss, *losses)} == {np.ndarray}
    tensors = [torch.from_numpy(array) for array in (*data, masks)]
    for make in (torch.clone, Foreign):
        found = kernels.solve(*map(make, tensors), l2=0.1, weights=make(torch.from_numpy(weights)))
        assert_same_bits(found, expected)
        again = [f(found.x, *map(make, tensors[:2])) for f in (kernels.row_losses, kernels.mean_losses)]
        for got, same in zip(again, losses, strict=True):
            np.testing.assert_array_equal(got, same)
        assert {type(a) for a in (found.x, found.loss, found.status, *again)} == {torch.Tensor}
    read = kernels.solve(*map(read_only, tensors[:3]), read_only(tensors[3]), l2=0.1, weights=weights)
    assert_same_bits(read, expected)
