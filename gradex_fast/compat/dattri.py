"""dattri's random projections (`dattri.func.projection` of 0.3) over the kernels: same arguments, no P stored.

With P / √proj_dim, as dattri's: inner products are kept on average. P's numbers are others than dattri's. All types run
on the CPU and CUDA; "sjlt" and "grass" need no package of their own. dattri need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gradex_fast.compat.dattri_projectors import (
    GRASS_MULTIPLIER,
    AbstractProjector,
    BasicProjector,
    ChunkedCudaProjector,
    CudaProjector,
    ProjectionType,
)
from gradex_fast.compat.projection import Gradients

__all__ = [
    "AbstractProjector",
    "BasicProjector",
    "ChunkedCudaProjector",
    "CudaProjector",
    "ProjectionType",
    "make_random_projector",
    "random_project",
]


def make_random_projector(
    param_shape_list: Sequence[int],
    feature_batch_size: int,
    proj_dim: int,
    proj_max_batch_size: int,
    device: torch.device | str,
    proj_seed: int = 0,
    proj_type: str | ProjectionType = ProjectionType.sjlt,
    *,
    dtype: torch.dtype = torch.float32,
    grass_multiplier: int = GRASS_MULTIPLIER,
) -> CudaProjector:
    """One projector of sum(param_shape_list) features; the batch sizes are taken and not needed."""
    size = sum(param_shape_list)
    return CudaProjector(size, proj_dim, proj_seed, proj_type, device, dtype, grass_multiplier)


def random_project(
    feature: Gradients,
    feature_batch_size: Any = None,
    proj_dim: int | None = None,
    proj_max_batch_size: int | None = None,
    proj_seed: int = 0,
    proj_type: str | ProjectionType = "normal",
    *,
    device: torch.device | str = "cpu",
    proj_params: Any = None,
) -> Callable[..., torch.Tensor]:
    """A function of (features, ensemble_id=0) for features like `feature`, and of its dtype.

    Takes the arguments one by one, as dattri 0.3.0 does, or as a `RandomProjectionParams`, as its later versions do.

    Args:
        feature: an example, [n, p] or by parameter; only its shapes and dtype are looked at.
        proj_type: of `ProjectionType`, or "grass_N": N · proj_dim features are kept before "sjlt".

    Raises:
        ValueError: a dimension is not positive, or there is no such type.
    """
    params = feature_batch_size if hasattr(feature_batch_size, "proj_dim") else proj_params
    if params is not None:
        proj_dim, proj_seed, proj_type = params.proj_dim, params.proj_seed, params.proj_type
        feature_batch_size, device = params.feature_batch_size, params.device
    if proj_dim is None or not feature_batch_size:
        raise ValueError("random_project needs feature_batch_size and proj_dim")
    examples = [feature] if isinstance(feature, torch.Tensor) else list(feature.values())
    sizes = [each.numel() // feature_batch_size for each in examples]
    kind, multiplier = _grass(proj_type)
    projector = make_random_projector(
        sizes,
        feature_batch_size,
        proj_dim,
        proj_max_batch_size or len(examples[0]),
        device,
        proj_seed,
        kind,
        dtype=examples[0].dtype,
        grass_multiplier=multiplier,
    )

    def project(feature: Gradients, ensemble_id: int = 0) -> torch.Tensor:
        return projector.project(feature, ensemble_id)

    return project


def _grass(proj_type: str | ProjectionType) -> tuple[str | ProjectionType, int]:
    """The type, and N of "grass_N"."""
    kind, _, multiplier = proj_type.partition("grass_")
    return ("grass", int(multiplier)) if not kind and multiplier.isdecimal() else (proj_type, GRASS_MULTIPLIER)
