"""Synthetic subset regressions with the shape of sketched gradients: the generator of `bench_solve.py`.

Row s of source t, in 1,500 latent dimensions with Σ = diag(k⁻¹) / tr, unit directions μ₀ and μ_t:

    g_s = scale_s (0.35 μ₀ + 0.3 μ_t + noise_t Σ^½ ε_s)      log scale_s ~ N(0, 0.3²)
    h_s = m_t + 1.1 ε'_s                                      m_t ~ N(1.3, 0.7²)

noise_t = 1.3 in every fifth source (the noisy ones) and 1 in the others. All g are multiplied by one Rademacher/√d
matrix and then by one factor that makes the training rows' mean |g|² one. Sources' sizes are lognormal(0.7); 687
validation rows come from a source of their own. All labels are 1: a label only flips g's sign. 0.35 makes the share of
training rows with g·mean(g) > 0 about 0.998 (medium), the score that the paper's authors print for Llama.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LATENT, VALIDATION, CHUNK = 1500, 687, 8192
COMMON, OWN, NOISE, NOISY_EVERY = 0.35, 0.3, 1.3, 5


@dataclass(frozen=True)
class Size:
    rows: int
    sources: int
    dim: int


SIZES = {
    "small": Size(5_000, 20, 100),
    "medium": Size(12_800, 100, 100),
    "wide": Size(12_800, 100, 400),
    "large": Size(100_000, 1_691, 100),
    "xl": Size(272_000, 38, 100),
}

REGIMES = {"strong": 1.0, "mid": 0.03, "weak": 0.001}
"""λ as a multiple of ‖H‖, the top eigenvalue of the mean Hessian at 0."""


@dataclass(frozen=True)
class Problem:
    """Attributes:
    features: float32 [N, d], rows sorted by source. margins: float64 [N]. group_ptr: int64 [n + 1].
    valid_features: float32 [v, d]. valid_margins: float64 [v].
    """

    features: np.ndarray
    margins: np.ndarray
    group_ptr: np.ndarray
    valid_features: np.ndarray
    valid_margins: np.ndarray

    def rows(self, subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Copies of the features [r, d] and margins [r] of a subset's rows; subset bool [n]."""
        spans = [slice(self.group_ptr[source], self.group_ptr[source + 1]) for source in np.flatnonzero(subset)]
        return np.concatenate([self.features[span] for span in spans]), np.concatenate(
            [self.margins[span] for span in spans]
        )


def make_problem(size: Size, seed: int = 0) -> Problem:
    """The same problem for the same size and seed (but for the rounding of the BLAS); a chunk of rows at a time."""
    draw = np.random.default_rng([seed, size.rows, size.sources, size.dim])
    pointer = _group_pointer(draw.lognormal(0, 0.7, size.sources), size.rows)
    projection = draw.choice(np.float32([-1, 1]), (LATENT, size.dim)) / np.float32(np.sqrt(size.dim))
    centres = _centres(draw, size.sources + 1) @ projection
    noise = np.where(np.arange(size.sources + 1) % NOISY_EVERY == NOISY_EVERY - 1, NOISE, 1).astype(np.float32)
    level = draw.normal(1.3, 0.7, size.sources + 1)
    source = np.repeat(np.arange(size.sources + 1), [*np.diff(pointer), VALIDATION])
    features = _rows(draw, source, centres, noise, _spread()[:, None] * projection)
    margins = level[source] + 1.1 * draw.standard_normal(len(source))
    features /= np.sqrt(np.square(features[: size.rows]).sum(1).mean())
    train, valid = slice(size.rows), slice(size.rows, None)
    return Problem(features[train], margins[train], pointer, features[valid], margins[valid])


def mean_hessian(problem: Problem) -> np.ndarray:
    """mean σ'(h_i) g_i g_iᵀ over all training rows: float64 [d, d]."""
    slope = 0.25 / np.cosh(problem.margins / 2) ** 2
    total = np.zeros((problem.features.shape[1],) * 2)
    for start in range(0, len(slope), CHUNK):
        block = problem.features[start : start + CHUNK].astype(np.float64)
        total += (block.T * slope[start : start + CHUNK]) @ block
    return total / len(slope)


def penalties(problem: Problem) -> dict[str, float]:
    """λ of every regime."""
    top = float(np.linalg.eigvalsh(mean_hessian(problem))[-1])
    return {regime: factor * top for regime, factor in REGIMES.items()}


def random_subsets(sources: int, count: int = 1000, fraction: float = 0.75, seed: int = 1) -> np.ndarray:
    """bool [count, sources]: each row holds round(fraction · sources) of them."""
    draw, size = np.random.default_rng(seed), round(fraction * sources)
    return draw.permuted(np.repeat([np.arange(sources) < size], count, axis=0), axis=1)


def _group_pointer(weights: np.ndarray, rows: int) -> np.ndarray:
    """int64 [n + 1]: `rows` shared out in proportion to weights [n]."""
    return np.round(np.cumsum([0, *weights]) / weights.sum() * rows).astype(np.int64)


def _centres(draw: np.random.Generator, count: int) -> np.ndarray:
    """float32 [count, LATENT]: 0.35 μ₀ + 0.3 μ_t."""
    directions = draw.standard_normal((count + 1, LATENT), np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return COMMON * directions[0] + OWN * directions[1:]


def _spread() -> np.ndarray:
    """float32 [LATENT]: the diagonal of Σ^½."""
    variance = 1 / np.arange(1, LATENT + 1)
    return np.sqrt(variance / variance.sum()).astype(np.float32)


def _rows(draw, source: np.ndarray, centres: np.ndarray, noise: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """float32 [N, d]: scale_s (centre of the source + noise_t ε_s · mix); mix [LATENT, d]."""
    scale = np.exp(0.3 * draw.standard_normal((len(source), 1), np.float32))
    features = np.empty((len(source), mix.shape[1]), np.float32)
    for start in range(0, len(source), CHUNK):
        part = slice(start, start + CHUNK)
        own = source[part]
        noisy = draw.standard_normal((len(own), LATENT), np.float32) @ mix
        features[part] = scale[part] * (centres[own] + noise[own, None] * noisy)
    return features
