"""TRAK's projectors (`trak.projectors` of traker 0.3) over `kernels.project`: same arguments, same scale, no P stored.

P's entries are N(0, 1) or ±1, with no 1/√proj_dim, as TRAK's are: ⟨project(a), project(b)⟩ is proj_dim · ⟨a, b⟩ on
average. P's numbers are others than TRAK's. trak need not be installed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import torch

from gradex_fast.compat.projection import (
    Gradients,
    check_sizes,
    check_width,
    checked_type,
    flattened,
    projected,
    register,
)

__all__ = ["AbstractProjector", "BasicProjector", "ChunkedCudaProjector", "CudaProjector", "ProjectionType"]


class ProjectionType(StrEnum):
    normal = "normal"
    rademacher = "rademacher"


DISTRIBUTIONS = {ProjectionType.normal: "gaussian", ProjectionType.rademacher: "rademacher"}


class _Stateless:
    def free_memory(self) -> None:
        """Nothing is held."""


class AbstractProjector(_Stateless, ABC):
    """grads [n, grad_dim] or by parameter, to [n, proj_dim]."""

    def __init__(
        self,
        grad_dim: int,
        proj_dim: int,
        seed: int,
        proj_type: str | ProjectionType,
        device: torch.device | str,
    ) -> None:
        """Raises ValueError where a dimension is not positive or the type is not one of `ProjectionType`."""
        check_sizes(grad_dim=grad_dim, proj_dim=proj_dim)
        self.grad_dim, self.proj_dim, self.seed, self.device = int(grad_dim), int(proj_dim), int(seed), device
        self.proj_type = checked_type(ProjectionType, proj_type)

    @abstractmethod
    def project(self, grads: Gradients, model_id: int) -> torch.Tensor:
        """[n, proj_dim]; another P for every model_id."""


class BasicProjector(AbstractProjector):
    """The result is of `dtype`; sums are float32. `block_size` is taken and not needed: P is never in memory."""

    def __init__(
        self,
        grad_dim: int,
        proj_dim: int,
        seed: int,
        proj_type: str | ProjectionType,
        device: torch.device | str,
        block_size: int = 100,
        dtype: torch.dtype = torch.float32,
        model_id: int = 0,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(grad_dim, proj_dim, seed, proj_type, device)
        self.block_size, self.dtype, self.model_id = block_size, dtype, model_id

    def project(self, grads: Gradients, model_id: int) -> torch.Tensor:
        """[n, proj_dim] of `dtype` on `device`.

        Args:
            grads: [n, grad_dim], or a dict by parameter of [n, ...] in the order of a flat gradient; any device.

        Raises:
            ValueError: the gradients do not have grad_dim numbers a sample.
        """
        return _unscaled(self, grads, model_id).to(self.dtype)


class CudaProjector(AbstractProjector):
    """The result is float32, as TRAK's. Any device, the CPU too, any proj_dim; `max_batch_size` is not needed.

    The same P as `BasicProjector`'s for the same seed and model_id.
    """

    def __init__(
        self,
        grad_dim: int,
        proj_dim: int,
        seed: int,
        proj_type: str | ProjectionType,
        device: torch.device | str,
        max_batch_size: int = 32,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(grad_dim, proj_dim, seed, proj_type, device)
        self.max_batch_size = max_batch_size

    def project(self, grads: Gradients, model_id: int) -> torch.Tensor:
        """float32 [n, proj_dim] on `device`; arguments and errors as `BasicProjector.project`'s."""
        return _unscaled(self, grads, model_id)


class ChunkedCudaProjector(_Stateless):
    """A projector for every chunk of parameters, summed: for code that asks for it, as one of ours takes any size."""

    def __init__(
        self,
        projector_per_chunk: Sequence[AbstractProjector],
        max_chunk_size: int,
        params_per_chunk: Sequence[int],
        feat_bs: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        """params_per_chunk: numbers a sample of each chunk, whole parameters."""
        self.projector_per_chunk, self.params_per_chunk = projector_per_chunk, params_per_chunk
        self.proj_dim, self.proj_type = projector_per_chunk[0].proj_dim, projector_per_chunk[0].proj_type
        self.max_chunk_size, self.feat_bs, self.device, self.dtype = max_chunk_size, feat_bs, device, dtype

    def project(self, grads: Gradients, model_id: int) -> torch.Tensor:
        """[n, proj_dim] of `dtype`.

        Raises:
            ValueError: the parameters do not fill the chunks one after the other.
        """
        parts = flattened(grads)
        check_width(sum(part.shape[1] for part in parts), int(sum(self.params_per_chunk)))
        total, end, ends = torch.zeros(len(parts[0]), self.proj_dim, device=self.device), 0, []
        for part in parts:
            ends.append(end := end + part.shape[1])
        begin = 0
        for projector, size in zip(self.projector_per_chunk, self.params_per_chunk, strict=True):
            chunk = {str(i): part for i, part in enumerate(parts) if begin < ends[i] <= begin + size}
            if chunk:
                total += projector.project(chunk, model_id)
            begin += size
        return total.to(self.dtype)


def _unscaled(projector: AbstractProjector, grads: Gradients, model_id: int) -> torch.Tensor:
    """grads · P, float32."""
    p = {"size": projector.grad_dim, "dim": projector.proj_dim, "seed": projector.seed, "which": model_id}
    distribution = DISTRIBUTIONS[projector.proj_type]
    found = projected(grads, **p, distribution=distribution, device=projector.device)
    return found.mul_(math.sqrt(projector.proj_dim))


register("trak.projectors", AbstractProjector)
