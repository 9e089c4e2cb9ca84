"""The sections of a recipe: every number of a run, with its bounds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_serializer,
    field_validator,
    model_validator,
)


class Section(BaseModel):
    """A part of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelRecipe(Section):
    """The pretrained model: a hub id or a folder, and what is trained in it."""

    name: str
    task: Literal["causal-lm", "sequence-classification"] = "causal-lm"
    labels: int | None = Field(None, ge=2, description="classes of a classifier")
    revision: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    trust_remote_code: bool = False
    adapter: Literal["lora", "full"] = "lora"
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = "all-linear"
    like: str | None = Field(
        None, description="PEFT folder: new adapters have its configuration, in place of rank, alpha, dropout, targets"
    )
    adapter_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="in which adapters are trained and sketched; bfloat16: less memory"
    )
    quantization: Literal["4bit", "8bit"] | None = Field(None, description="of the base; 4bit: NF4, twice quantised")
    device_map: Literal["auto", "balanced"] | tuple[tuple[str, int | str], ...] | None = Field(
        None, description="on several GPUs: how layers are spread, or a mapping of modules to devices"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")

    @field_validator("device_map", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        return tuple(value.items()) if isinstance(value, Mapping) else value

    @field_validator("device_map")
    @classmethod
    def _no_offloading(cls, value: Any) -> Any:
        if isinstance(value, tuple) and any(device == "disk" for _, device in value):
            raise ValueError("'disk': layers that lie there can be neither trained nor sketched")
        return value

    @field_serializer("device_map")
    def _mapping(self, value: Any) -> Any:
        return dict(value) if isinstance(value, tuple) else value

    @model_validator(mode="after")
    def _full_needs_weights(self) -> ModelRecipe:
        if self.adapter == "full":
            own = {
                "quantization": self.quantization,
                "like": self.like,
                "adapter_dtype": self.adapter_dtype != "float32",
            }
            if key := next((key for key, value in own.items() if value), None):
                why = ": a quantised base cannot be trained itself" if key == "quantization" else ""
                raise ValueError(f"{key}{why}: needs adapter: lora")
        return self


class TrainRecipe(Section):
    """One fine-tuning. The loss is the mean over samples of each sample's mean token loss."""

    epochs: float = Field(3.0, gt=0)
    steps: int | None = Field(None, ge=1, description="optimiser steps, in place of epochs")
    learning_rate: float = Field(2e-4, gt=0)
    batch_size: int = Field(8, ge=1, description="samples on a device in one step")
    accumulation: int = Field(1, ge=1)
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.0, ge=0, lt=1, description="share of all steps")
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    max_grad_norm: float = Field(1.0, gt=0)
    checkpoints: int = Field(4, ge=0, description="saved evenly over the run, to resume from")
    packing: bool = Field(False, description="a step's samples go through the model one after the other in long rows")
    packed_tokens: int = Field(2048, ge=2, description="of a packed row, at most; a longer sample has one of its own")
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()

    def key(self) -> str:
        """JSON of what a training's result depends on; of older recipes what it always was."""
        return self.model_dump_json(exclude=self.silent)

    @property
    def silent(self) -> set[str]:
        """Fields that leave the result as it is."""
        return {"report_to"} | (set() if self.packing else {"packing", "packed_tokens"})


class MetaRecipe(Section):
    """What differs between meta-training and any other training; the rest is `train`'s. ``none`` is short for its first
    field."""

    training: Literal["all", "none"] = Field("all", description="none: θ* is the pretrained model, fresh adapters")
    adapter: str | None = Field(None, description="PEFT folder: θ* is this adapter, nothing is trained")
    sam: float = Field(0.0, ge=0, description="ρ of sharpness-aware minimisation, two passes a step; 0: off")
    patience: int | None = Field(
        None, ge=1, description="stop after so many looks at the validation loss without a lower one; None: never look"
    )
    every: int = Field(50, ge=1, description="optimiser steps between two looks")

    @property
    def passes(self) -> int:
        """Of meta-training over its rows, for one of a plain training."""
        return 0 if self.training == "none" else 2 if self.sam else 1

    def key(self) -> str:
        """As `TrainRecipe.key`."""
        return self.model_dump_json(exclude=set() if self.adapter else {"adapter"})

    @model_validator(mode="before")
    @classmethod
    def _adapter_is_trained(cls, tree: Any) -> Any:
        return {"training": "none", **tree} if isinstance(tree, dict) and tree.get("adapter") else tree

    @model_validator(mode="after")
    def _nothing_to_train(self) -> MetaRecipe:
        if self.adapter and self.training == "all":
            raise ValueError("adapter: PATH is θ* already; training: all would throw it away")
        if self.training == "none" and (self.sam or self.patience):
            raise ValueError("training: none leaves nothing for sam or patience to change")
        return self


class SketchRecipe(Section):
    dim: int = Field(100, ge=1, description="d, columns of the projection")
    distribution: Literal["gaussian", "rademacher", "tensorsketch"] = Field("gaussian", description="of P's entries")
    margin: Literal["sequence", "token"] = "sequence"
    batch_tokens: int = Field(8192, ge=1, description="padded tokens in one pass, at most")
    memory: float | None = Field(
        None, gt=0, description="GiB for one pass; None: what a GPU has free, on the CPU no limit"
    )
    shard_rows: int = Field(1024, ge=1)
    parameters: str | None = Field(None, description="regular expression of parameter names")
    on_nonfinite: Literal["error", "skip"] = "error"

    @field_validator("parameters")
    @classmethod
    def _regular_expression(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
        return pattern


class ClustersRecipe(Section):
    """Raw rows as sources: rows are cut into clusters by their sketches, and these are selected."""

    count: int = Field(100, ge=2, le=1000, description="clusters of each cut; the paper takes 50 to 400")
    method: Literal["spectral", "agglomerative"] = "spectral"
    sources: Literal["all"] | tuple[str, ...] = Field("all", description="all: in one cut; names: each on its own")


class EstimateRecipe(Section):
    ridge: float | Literal["auto"] = 10.0
    anchors: int = Field(0, ge=0, description="subsets fine-tuned for real, to calibrate f̂")
    anchor_fraction: float = Field(0.75, gt=0, lt=1)
    anchor_train: TrainRecipe | None = Field(None, description="None: the same as `train`")
    bootstrap: int = Field(200, ge=10)
    mode: Literal["linear", "lift"] = "linear"
    divisor: Literal["typical", "own"] = Field(
        "typical", description="of the losses in a subset's regression: one for all subsets, or its own rows"
    )

    @model_validator(mode="after")
    def _auto_needs_anchors(self) -> EstimateRecipe:
        if self.ridge == "auto" and self.anchors < 3:
            raise ValueError("ridge: auto needs anchors of 3 or more to choose by")
        if self.ridge != "auto" and self.ridge <= 0:
            raise ValueError("ridge must be positive")
        return self


_Method = Literal["forward", "backward", "floating", "ensemble"]


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1


class SelectRecipe(Section):
    method: _Method = "ensemble"
    also: tuple[_Method, ...] = Field((), description="choices listed beside it")
    keep: int | None = Field(None, ge=1, description="how many sources; None: decided by f̂")
    include: tuple[str, ...] = Field((), description="sources that are always chosen, by name")
    exclude: tuple[str, ...] = Field((), description="sources that never are, by name")
    max_rows: int | None = Field(None, ge=1, description="of the chosen sources together")
    max_tokens: int | None = Field(None, ge=1, description="in place of max_rows")
    whole: bool = Field(False, description="greedy: go on to the end, choose the best set on the way")
    subsets: int = Field(1000, ge=2, description="ensemble, m: for each fraction")
    fraction: float | tuple[float, ...] = Field(
        0.75, description="ensemble, α: share of the sources in a subset; of several the best by cross-validation"
    )
    sampling: Literal["independent", "balanced", "antithetic"] = Field("independent", description="of the subsets")
    threshold: float | Literal["break", "cross-validation"] = Field("break", description="ensemble, γ in nats")
    ratios: Literal["few", "most"] | tuple[float, ...] = Field(
        (), description="ensemble: shares of the sources to compare; few: 5 to 20 %, most: 70 to 95 %"
    )

    @field_validator("fraction", mode="before")
    @classmethod
    def _fractions(cls, value: Any) -> Any:
        each = value if isinstance(value, list | tuple) and value else [value]
        if not all(_is_share(share) and share < 1 for share in each):
            raise ValueError(f"{value!r} is neither a number between 0 and 1 nor a list of such")
        return value

    @field_validator("ratios", mode="before")
    @classmethod
    def _ratios(cls, value: Any) -> Any:
        if value not in ("few", "most") and not (isinstance(value, list | tuple) and all(map(_is_share, value))):
            raise ValueError(f"{value!r} is neither 'few' nor 'most' nor a list of numbers above 0, at most 1")
        return value

    @field_validator("threshold", mode="before")
    @classmethod
    def _threshold(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number and value not in ("break", "cross-validation"):
            raise ValueError(f"{value!r} is neither 'break' nor 'cross-validation' nor a number of nats")
        return value

    @model_validator(mode="after")
    def _options_go_together(self) -> SelectRecipe:
        if self.max_rows is not None and self.max_tokens is not None:
            raise ValueError("give max_rows or max_tokens, not both")
        if self.sampling == "antithetic" and self.fraction not in (0.5, (0.5,)):
            raise ValueError("sampling: antithetic needs fraction: 0.5")
        if (self.threshold == "cross-validation" or isinstance(self.fraction, tuple)) and self.subsets < 4:
            raise ValueError("cross-validation needs subsets of 4 or more")
        return self


class DiagnoseRecipe(Section):
    """What `gradex-fast diagnose` measures, and how much of it."""

    subsets: int = Field(12, ge=1, description="random subsets fine-tuned for real; the anchors are the first of them")
    path: int = Field(5, ge=0, description="steps of forward selection whose subsets are fine-tuned too")
    directions: int = Field(2, ge=1, description="of each kind in which the expansion is followed")
    distances: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.0005, 0.001, 0.0015, 0.002, 0.0025), min_length=1, description="|Δ| / |θ*|, over the trained parameters"
    )
    rows: int = Field(100, ge=1, description="rows of the expansion, one backward pass each")
    dims: tuple[Annotated[int, Field(ge=1)], ...] = Field((50, 100, 200, 400), min_length=1)
    ridges: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.01, 0.1, 1.0, 10.0, 100.0), min_length=1, description="times the run's ridge"
    )
