"""What `gradex-fast bench` is asked to measure."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gradex_fast.errors import GradexError

Part = Literal["kernels", "pass", "solve"]
Distribution = Literal["gaussian", "rademacher", "tensorsketch"]


class BenchSettings(BaseModel):
    """A model, the shapes of its batches and of a subset problem, and how long to measure."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "gpt2"
    adapter: Literal["lora", "full"] = "lora"
    rank: int = Field(16, ge=1)
    targets: str = "all-linear"
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on a GPU, else float32")
    rows: int = Field(8, ge=1, description="of a batch")
    tokens: int = Field(128, ge=2, description="of every row, all of them supervised")
    dim: int = Field(100, ge=1, description="d of the sketch and of the subset regressions")
    distributions: tuple[Distribution, ...] = Field(("gaussian",), min_length=1)
    parts: tuple[Part, ...] = Field(("kernels", "pass", "solve"), min_length=1)
    samples: int = Field(12_800, ge=1, description="training rows of the subset problem")
    sources: int = Field(100, ge=2, description="that they come from")
    subsets: int = Field(1_000, ge=1, description="solved together, each of three quarters of the sources")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = Field(None, ge=1, description="None: torch's number")
    repeats: int = Field(7, ge=1, description="rounds of every case, at most")
    seconds: float = Field(20.0, gt=0, description="of rounds for every case, at most about; a longer call is left out")

    @classmethod
    def of(cls, **values: object) -> BenchSettings:
        """Raises `GradexError` naming the first option that is refused."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            raise GradexError(f"bench --{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from error
