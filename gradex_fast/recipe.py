"""A whole run's numbers: read from YAML and ``key=value``, validated, written back to YAML."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from gradex_fast.errors import GradexError
from gradex_fast.sections import (
    SOURCE_TAGS,
    ClustersRecipe,
    DataRecipe,
    DiagnoseRecipe,
    EstimateRecipe,
    MetaRecipe,
    ModelRecipe,
    Section,
    SelectRecipe,
    SketchRecipe,
    TrainRecipe,
)


class Recipe(Section):
    """A whole run. `load` reads one from YAML; `dump` writes one that loads to an equal recipe."""

    output: str = "runs/gradex"
    seed: int = Field(0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="CUDA_VISIBLE_DEVICES chooses the card")
    model: ModelRecipe
    data: DataRecipe
    train: TrainRecipe = TrainRecipe()
    meta: MetaRecipe = MetaRecipe()
    sketch: SketchRecipe = SketchRecipe()
    clusters: ClustersRecipe | None = None
    estimate: EstimateRecipe = EstimateRecipe()
    select: SelectRecipe = SelectRecipe()
    diagnose: DiagnoseRecipe = DiagnoseRecipe()

    @field_validator("meta", mode="before")
    @classmethod
    def _none_in_one_word(cls, value: Any) -> Any:
        return {"training": "none"} if value == "none" else value

    @model_validator(mode="before")
    @classmethod
    def _new_adapters_are_like_the_given_one(cls, tree: Any) -> Any:
        """The final model's is a fresh one of the same configuration as ``meta.adapter``."""
        if isinstance(tree, dict) and isinstance(model := tree.get("model"), dict):
            meta = tree.get("meta")
            if isinstance(meta, dict) and meta.get("adapter") and model.get("like") is None:
                return {**tree, "model": {**model, "like": meta["adapter"]}}
        return tree

    @model_validator(mode="after")
    def _an_adapter_needs_its_configuration(self) -> Recipe:
        if self.meta.adapter and self.model.like is None:
            raise ValueError("meta.adapter: model.like must name the folder whose configuration new adapters have")
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: tuple[str, ...] = ()) -> Recipe:
        """Read `path`; each override is ``section.key=value`` with a YAML value.

        Raises:
            GradexError: the file is missing or not YAML, a key is unknown or a value is refused.
        """
        try:
            tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise GradexError(f"cannot read recipe {path}: {' '.join(str(error).split())}") from error
        if not isinstance(tree, dict):
            raise GradexError(f"recipe {path} must be a mapping of sections (model:, data:, ...)")
        for override in overrides:
            _override(tree, override)
        return cls.build(tree)

    @classmethod
    def build(cls, tree: dict[str, Any]) -> Recipe:
        """Validate a nested mapping. Raises `GradexError` naming the first key that is wrong."""
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise GradexError(_explain(error.errors()[0])) from error

    def dump(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _override(tree: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals:
        raise GradexError(f"override {text!r} must read section.key=value")
    *sections, last = key.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise GradexError(f"override {text!r}: {section} is not a section")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise GradexError(f"override {text!r}: the value is not YAML: {' '.join(str(error).split())}") from error


def _explain(error: Any) -> str:
    location = list(error["loc"])
    if location[:2] == ["data", "sources"] and location[2:3] and location[2] in SOURCE_TAGS:
        del location[2]  # pydantic names the branch of the union, which no recipe has
    place = ".".join(map(str, location)) or "recipe"
    if error["type"] != "extra_forbidden":
        return f"recipe: {place}: {error['msg']}"
    near = difflib.get_close_matches(str(error["loc"][-1]), _all_keys(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"recipe: unknown key {place!r}{hint}"


def _all_keys() -> list[str]:
    return sorted({key for section in _sections(Section) for key in section.model_fields})


def _sections(base: type[Section]) -> list[type[Section]]:
    return [base, *(leaf for child in base.__subclasses__() for leaf in _sections(child))]
