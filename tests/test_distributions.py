"""What holds for every distribution on every backend: unbiased inner products of known spread, no effect of shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import Place
from distributions import DISTRIBUTIONS, exact_and_allowed, variance
from exact_sketch import PLAN, dense, random

from gradex_fast import kernels, native

SEEDS, DIM = 4000, 16


@pytest.fixture(params=DISTRIBUTIONS)
def plan(request: pytest.FixtureRequest, place: Place) -> dict[str, str]:
    """A distribution and a backend that has it; TensorSketch is torch's work, one instruction set tests it."""
    found = {"distribution": request.param, "backend": place.backend}
    once = request.param == "tensorsketch" and place.backend == "cpu"
    if once and native.instruction_set() != native.instruction_sets()[0]:
        pytest.skip("no other code than with the first instruction set")
    return found


def products(x: torch.Tensor, d: torch.Tensor, seeds: int, dim: int, **plan: str) -> np.ndarray:
    """⟨sketch(i), sketch(j)⟩, float64 [seeds, n, n], a seed at a time."""
    each = (kernels.sketch(x, d, name="w", seed=seed, dim=dim, **plan) for seed in range(seeds))
    return np.stack([(g.double() @ g.double().T).cpu().numpy() for g in each])


def assert_mean_and_variance(found: np.ndarray, a: np.ndarray, b: np.ndarray, dim: int, distribution: str) -> None:
    truth, expected = (a * b).sum(), variance(a, b, dim, distribution)
    assert abs(found.mean() - truth) < 4 * np.sqrt(expected / len(found)), (
        f"mean {found.mean():.3f} for {truth:.3f}. A factor of {dim} or 1/{dim}: the scale is missing, squared or too "
        "much (TensorSketch has none); another number: inputs and gradients are paired wrongly"
    )
    squares = (found - truth) ** 2
    assert abs(squares.mean() - expected) < 4 * squares.std() / np.sqrt(len(found)), (
        f"variance {squares.mean():.3f} for {expected:.3f}. Too large: columns are correlated or too few; a little too "
        "large or small: fourth moments are those of another distribution"
    )


def test_inner_products_are_unbiased_with_the_distribution_s_variance(plan: dict[str, str], place: Place) -> None:
    x, d = random(2, 3, 5).to(place.device), random(2, 3, 4).to(place.device)
    a, b = dense(x.double().cpu().numpy(), d.double().cpu().numpy()).reshape(2, 4, 5)
    found = products(x, d, SEEDS, DIM, **plan)
    assert_mean_and_variance(found[:, 0, 1], a, b, DIM, plan["distribution"])
    assert_mean_and_variance(found[:, 0, 0], a, a, DIM, plan["distribution"])


@pytest.mark.parametrize(("alpha", "beta", "ratio"), [(1.0, 1.0, 3.0), (1.0, 0.0, 2.0), (0.0, 0.0, 1.0)])
def test_tensorsketch_s_worst_cases_are_single_terms(alpha: float, beta: float, ratio: float) -> None:
    """Of a = d ⊗ x and b = e ⊗ y with cosines α of d, e and β of x, y, the variance is

    (1 + α² + β² + 3 α² β²) / (1 + α² β²) times a Gaussian's (for many features): 3 at a = b, 2 where d, e agree alone.
    """
    size = 64
    x, d = (np.random.default_rng(side).standard_normal((2, size)) for side in (0, 1))
    for side, cosine in ((x, beta), (d, alpha)):
        first, other = np.linalg.qr(side.T)[0].T
        side[0], side[1] = first, cosine * first + np.sqrt(1 - cosine**2) * other
    a, b = (np.outer(d[i], x[i]) for i in (0, 1))
    expected = variance(a, b, DIM, "tensorsketch")
    # O(1/features) are the pairs of an element with itself, O(1/dim) the mirror images: 6 % and 2/16 together.
    assert expected / variance(a, b, DIM, "gaussian") == pytest.approx(ratio, rel=0.2)
    # Avron, Nguyen and Woodruff 2014, "Subspace embeddings for the polynomial kernel": (2 + 3²) / dim in degree 2.
    assert expected <= 11 / DIM * (a**2).sum() * (b**2).sum()
    factors = (torch.from_numpy(side[:, None]).float() for side in (x, d))
    found = products(*factors, SEEDS, DIM, distribution="tensorsketch")
    assert_mean_and_variance(found[:, 0, 1], a, b, DIM, "tensorsketch")


def test_mean_errors_are_equal_on_generic_gradients() -> None:
    """Sums of many different terms: TensorSketch's mean error is a Gaussian's, √(2 / π dim) |a| |b|, within 4 %."""
    samples, size, dim, seeds = 6, 24, 64, 1500
    x, d = random(samples, 200, 2 * size).split(size, dim=2)
    gradients = dense(x.double().numpy(), d.double().numpy())
    norms = np.linalg.norm(gradients, axis=1)
    upper = np.triu_indices(samples, 1)
    error = {}
    for distribution in ("gaussian", "tensorsketch"):
        off = abs(products(x, d, seeds, dim, distribution=distribution) - gradients @ gradients.T)
        each = (off / np.outer(norms, norms))[:, *upper].mean(1)
        error[distribution] = each.mean(), each.std() / np.sqrt(seeds)
    (normal, spread), (tensor, other) = error.values()
    assert normal == pytest.approx(np.sqrt(2 / np.pi / dim), rel=0.03)
    assert abs(tensor / normal - 1) < 4 * np.hypot(spread, other) / normal < 0.04


def test_shape_and_order_do_not_matter(plan: dict[str, str], place: Place) -> None:
    """Tokens in two halves, padded, a sample at a time, other threads: all are the same sketch, to within rounding."""
    x, d = random(5, 11, 33).to(place.device), random(5, 11, 20).to(place.device)
    same, dim = {**PLAN, **plan, "dim": 37}, 37
    exact, allowed = exact_and_allowed(x, d, plan["distribution"], dim=dim, **PLAN)

    halves = kernels.sketch(x[:, :4], d[:, :4], **same)
    kernels.sketch(x[:, 4:], d[:, 4:], out=halves, **same)
    pad = torch.full((5, 6, 1), float("nan"), device=place.device)
    padded = [torch.cat([f, pad.expand(5, 6, f.shape[2])], dim=1) for f in (x, d)]
    ways = {
        "two halves of the tokens": halves,
        "tokens in another order": kernels.sketch(x.flip(1), d.flip(1), **same),
        "padding": kernels.sketch(*padded, lengths=[11] * 5, **same),
        "one sample at a time": torch.cat([kernels.sketch(x[i : i + 1], d[i : i + 1], **same) for i in range(5)]),
        "three threads": kernels.sketch(x, d, threads=3, **same),
        "lines of outputs": kernels.sketch(x, d[..., :7], **same)
        + kernels.sketch(x, d[..., 7:], offset=7 * 33, **same),
    }
    for way, got in ways.items():
        assert (abs(got.cpu().double().numpy() - exact) <= 2 * allowed).all(), way
