"""What a sketch must be, and how far float32 sums may lie from it."""

from __future__ import annotations

from contextvars import ContextVar
from functools import cache

import numpy as np
import torch

from gradex_fast import native
from gradex_fast.reference.gaussian import projection

PLAN = {"name": "layer.weight", "seed": 7}
UNIT = 2.0**-24  # half a float32 step relative to the value: what one rounding may cost
PARTS = 2.0**-16  # of a product of three numbers that are two bfloat16 parts each: 2^-18 of each, and their low parts'
MATRIX_UNIT: ContextVar[bool] = ContextVar("MATRIX_UNIT", default=False)
"""Whether the GPU's matrix unit is what is tested: it reads such parts, and cuts its sums where others round them."""

normals = cache(lambda offset, size: projection(**PLAN, size=size, dim=101, offset=offset))


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Standard normals, the same for the same shape."""
    generator = torch.Generator().manual_seed(hash(shape) % 2**31)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def way_through_a_tile() -> int:
    """Sums on the way from a tile's 512 lanes to one number: down the vectors, then across the lanes of one."""
    lanes = {"baseline": 4, "avx2": 8}.get(native.instruction_set(), 16)
    return 512 // lanes + lanes.bit_length() - 1


def allowed(terms: float, largest: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """What `terms` roundings may do to a sum whose addends' absolute values sum to `largest`, and one to `exact`."""
    each = 2 * terms * UNIT + PARTS if MATRIX_UNIT.get() else terms * UNIT
    return each * largest + UNIT * abs(exact)


def dense(x: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Gradients [n, q p] of a linear layer from inputs x [n, t, p] and output gradients d [n, t, q]."""
    return np.einsum("nto,ntc->noc", d, x, optimize=True).reshape(len(x), d.shape[2] * x.shape[2])


def exact_sketch(x, d, *, dim: int, lengths=None, start=0.0, offset: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """What to find in `out`, and the most that the roundings can do to it: terms · UNIT · Σ |D|ᵀ|X| |P| / √dim.

    An addend is rounded in at most `terms` sums and products: one a token, `way_through_a_tile`, one a tile of the
    same chunk (at most p q / 4,096), 6 for its product, both inputs (float64 is rounded), the scale and the
    conversions. The sum with `start` is rounded once more.
    """
    x, d = (torch.as_tensor(array).detach().double().cpu().numpy() for array in (x, d))
    tokens = np.full(len(x), x.shape[1]) if lengths is None else np.asarray(lengths)
    kept = (np.arange(x.shape[1]) < tokens[:, None])[..., None]
    x, d = np.where(kept, x, 0.0), np.where(kept, d, 0.0)
    size = x.shape[2] * d.shape[2]
    p = normals(offset, max(size, 101 * 101))[:size, :dim] / np.sqrt(dim)
    exact, largest = dense(x, d) @ p + start, dense(abs(x), abs(d)) @ abs(p)
    return exact, allowed(x.shape[1] + way_through_a_tile() + 6 + size / 4096, largest, exact)


def assert_within(got, exact: np.ndarray, allowed: np.ndarray) -> None:
    got = got.cpu().numpy() if isinstance(got, torch.Tensor) else got
    assert got.dtype == np.float32 and got.shape == exact.shape
    wrong = ~(abs(got - exact) <= allowed)
    assert not wrong.any(), (
        f"{wrong.sum()} of {wrong.size} entries {list(wrong.shape)} differ by more than rounding, the first at "
        f"{np.argwhere(wrong)[0]}: {got[wrong][0]} for {exact[wrong][0]} ± {allowed[wrong][0]:.1e}"
    )


def assert_sketch(got, x, d, **plan) -> None:
    assert_within(got, *exact_sketch(x, d, **plan))
