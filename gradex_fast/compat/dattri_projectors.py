"""dattri's projectors: dense by the kernels, masks by an index, sparse ones by CountSketch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum

import torch

from gradex_fast.compat.projection import (
    Gradients,
    check_sizes,
    check_width,
    checked_type,
    projected,
    register,
    together,
)


class ProjectionType(StrEnum):
    identity = "identity"
    normal = "normal"
    rademacher = "rademacher"
    sjlt = "sjlt"
    random_mask = "random_mask"
    grass = "grass"


DISTRIBUTIONS = {
    ProjectionType.normal: "gaussian",
    ProjectionType.rademacher: "rademacher",
    ProjectionType.sjlt: "tensorsketch",  # of one line: CountSketch, a ±1 a row of P
}
GRASS_MULTIPLIER = 4


class AbstractProjector(ABC):
    """features [n, feature_dim] or by parameter, to [n, proj_dim]."""

    def __init__(
        self,
        feature_dim: int,
        proj_dim: int,
        seed: int,
        proj_type: str | ProjectionType,
        device: torch.device | str,
    ) -> None:
        """Raises ValueError where a dimension is not positive or the type is not one of `ProjectionType`."""
        check_sizes(feature_dim=feature_dim, proj_dim=proj_dim)
        self.feature_dim, self.proj_dim, self.seed = int(feature_dim), int(proj_dim), int(seed)
        self.proj_type, self.device = checked_type(ProjectionType, proj_type), torch.device(device)

    @abstractmethod
    def project(self, features: Gradients, ensemble_id: int) -> torch.Tensor:
        """[n, proj_dim]; another P for every ensemble_id."""

    @abstractmethod
    def free_memory(self) -> None:
        """Gives back what is kept between calls."""


class _Projector(AbstractProjector):
    dtype: torch.dtype
    grass_multiplier = GRASS_MULTIPLIER
    _kept: tuple[int, torch.Tensor] | None = None

    def project(self, features: Gradients, ensemble_id: int) -> torch.Tensor:
        """[n, proj_dim] of `dtype` on `device`; sums are float32.

        Args:
            features: [n, feature_dim], or a dict by parameter of [n, ...] in the order of a flat one; any device.

        Raises:
            ValueError: the features do not have feature_dim numbers a sample.
        """
        if self.proj_type in (ProjectionType.normal, ProjectionType.rademacher):
            found = self._dense(features, self.proj_type, self.feature_dim, ensemble_id)
        else:
            whole = together(features, self.device)
            check_width(whole.shape[1], self.feature_dim)
            found = self._sparse(whole, ensemble_id)
        return found.to(self.dtype)

    def _sparse(self, features: torch.Tensor, ensemble_id: int) -> torch.Tensor:
        if self.proj_type == ProjectionType.sjlt:
            return self._dense(features, ProjectionType.sjlt, self.feature_dim, ensemble_id)
        if self.proj_type == ProjectionType.random_mask:
            return features[:, self._mask(self.proj_dim, ensemble_id)]
        if self.proj_type == ProjectionType.grass:
            mask = self._mask(self.grass_multiplier * self.proj_dim, ensemble_id)
            return self._dense(features[:, mask], ProjectionType.sjlt, len(mask), ensemble_id)
        return features

    def _dense(self, features: Gradients, proj_type: ProjectionType, size: int, ensemble_id: int) -> torch.Tensor:
        plan = {"size": size, "dim": self.proj_dim, "seed": self.seed, "which": ensemble_id}
        return projected(features, **plan, distribution=DISTRIBUTIONS[proj_type], device=self.device)

    def _mask(self, count: int, ensemble_id: int) -> torch.Tensor:
        """Which features are read, ascending: `count`, or all; kept for the next call."""
        if self._kept is None or self._kept[0] != ensemble_id:
            draw = torch.Generator().manual_seed(self.seed + 100_000 * ensemble_id)
            mask = torch.randperm(self.feature_dim, generator=draw)[:count].sort().values
            self._kept = ensemble_id, mask.to(self.device)
        return self._kept[1]

    def free_memory(self) -> None:
        """A mask is all that is kept between calls."""
        self._kept = None


class BasicProjector(_Projector):
    """`block_size` is taken and not needed: P is never in memory."""

    def __init__(
        self,
        feature_dim: int,
        proj_dim: int,
        seed: int,
        proj_type: str | ProjectionType,
        device: torch.device | str,
        block_size: int = 100,
        dtype: torch.dtype = torch.float32,
        ensemble_id: int = 0,
    ) -> None:
        super().__init__(feature_dim, proj_dim, seed, proj_type, device)
        self.block_size, self.dtype, self.ensemble_id = block_size, dtype, ensemble_id


class CudaProjector(_Projector):
    """Any device, the CPU too; the same P as `BasicProjector`'s for the same seed and ensemble_id."""

    def __init__(
        self,
        feature_dim: int,
        proj_dim: int,
        seed: int,
        proj_type: str | ProjectionType,
        device: torch.device | str,
        dtype: torch.dtype = torch.float32,
        grass_multiplier: int = GRASS_MULTIPLIER,
    ) -> None:
        super().__init__(feature_dim, proj_dim, seed, proj_type, device)
        check_sizes(grass_multiplier=grass_multiplier)
        self.dtype, self.grass_multiplier = dtype, grass_multiplier


class ChunkedCudaProjector:
    """A projector for every chunk of features, summed: for code that asks for it, as one of ours takes any size."""

    def __init__(
        self,
        projector_per_chunk: Sequence[AbstractProjector],
        max_chunk_size: int,
        dim_per_chunk: Sequence[int],
        feature_batch_size: int,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        self.projector_per_chunk, self.dim_per_chunk = projector_per_chunk, dim_per_chunk
        self.proj_dim, self.proj_type = projector_per_chunk[0].proj_dim, projector_per_chunk[0].proj_type
        self.max_chunk_size, self.feature_batch_size = max_chunk_size, feature_batch_size
        self.device, self.dtype = device, dtype

    def project(self, features: torch.Tensor, ensemble_id: int) -> torch.Tensor:
        """features [n, sum of the chunks], to [n, proj_dim] of `dtype`.

        Raises:
            TypeError: a dict; `dict_project` takes these.
            ValueError: the features do not fill the chunks.
        """
        if not isinstance(features, torch.Tensor):
            raise TypeError("ChunkedCudaProjector.project only accepts Tensor inputs; use dict_project for a dict")
        check_width(features.shape[1], int(sum(self.dim_per_chunk)))
        total = torch.zeros(len(features), self.proj_dim, device=self.device)
        chunks = features.split(list(self.dim_per_chunk), dim=1)
        for projector, chunk in zip(self.projector_per_chunk, chunks, strict=True):
            total += projector.project(chunk, ensemble_id)
        return total.to(self.dtype)

    def dict_project(self, features: Gradients, ensemble_id: int) -> torch.Tensor:
        """By parameter, in the order of a flat one."""
        return self.project(together(features, self.device), ensemble_id)

    def free_memory(self) -> None:
        for projector in self.projector_per_chunk:
            projector.free_memory()


register("dattri.func.projection", AbstractProjector)
