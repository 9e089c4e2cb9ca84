"""A whole run's numbers: read from YAML and ``key=value``, validated, written back to YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from gradex_fast import packaged
from gradex_fast.data_sections import DataRecipe
from gradex_fast.errors import GradexError
from gradex_fast.overrides import apply, lay_over
from gradex_fast.recipe_errors import explain
from gradex_fast.sections import (
    ClustersRecipe,
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
        """Read the recipe at `path`, or where there is no such file the packaged one of that name.

        Args:
            overrides: each is ``section.key=value`` with a YAML value, or another recipe to lay over this one.

        Raises:
            GradexError: the file is missing or not YAML, a key is unknown or a value is refused.
        """
        tree = _read(path)
        recipes = [text for text in overrides if _is_recipe(text)]
        for text in recipes:
            lay_over(tree, _read(text))
        apply(tree, [text for text in overrides if text not in recipes])
        return cls.build(tree)

    @classmethod
    def build(cls, tree: dict[str, Any]) -> Recipe:
        """Validate a nested mapping. Raises `GradexError` naming the first key that is wrong."""
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise GradexError(explain(error.errors()[0])) from error

    def dump(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read(path: str | Path) -> dict[str, Any]:
    known = str(path) in packaged.names()
    try:
        text = packaged.text(str(path)) if known and not Path(path).is_file() else Path(path).read_text("utf-8")
        tree = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise GradexError(
            f"cannot read recipe {path}: no such file, nor a recipe of that name (gradex-fast recipes lists them)"
        ) from error
    except IsADirectoryError as error:
        own = Path(path) / "config.yaml"
        hint = f"; the recipe of that run is {own}" if own.is_file() else ""
        raise GradexError(f"cannot read recipe {path}: it is a folder{hint}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GradexError(f"cannot read recipe {path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise GradexError(f"recipe {path} must be a mapping of sections (model:, data:, ...)")
    return _unshared(tree)


def _unshared(value: Any) -> Any:
    """YAML's aliases as copies: an override of one must not change the others."""
    if isinstance(value, dict):
        return {key: _unshared(each) for key, each in value.items()}
    return [_unshared(each) for each in value] if isinstance(value, list) else value


def _is_recipe(text: str) -> bool:
    return "=" not in text and (text in packaged.names() or text.endswith((".yaml", ".yml")))
