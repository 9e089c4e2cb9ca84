"""The recipe's training in the words that trl and LLaMA-Factory share with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradex_fast.export.mixture import Mixture
from gradex_fast.sections import ModelRecipe
from gradex_fast.train import total_steps

LOSS = "The run's loss gives every row the same weight; this tool's gives every token the same."


def arguments(mixture: Mixture) -> dict[str, Any]:
    """Of transformers' TrainingArguments, for the same steps as the run's final training."""
    recipe = mixture.recipe.train
    length = {"max_steps": recipe.steps} if recipe.steps else {"num_train_epochs": recipe.epochs}
    return {
        "per_device_train_batch_size": recipe.batch_size,
        "gradient_accumulation_steps": recipe.accumulation,
        **length,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": warmup_steps(mixture),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "seed": mixture.recipe.seed,
        "report_to": "none",
    }


def warmup_steps(mixture: Mixture) -> int:
    recipe = mixture.recipe.train
    return round(recipe.warmup * total_steps(mixture.rows, recipe))


def model_name(recipe: ModelRecipe) -> str:
    """The hub id, or the folder from the root: the files may be used from anywhere."""
    return str(Path(recipe.name).resolve()) if Path(recipe.name).is_dir() else recipe.name


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Without what the recipe leaves open."""
    return {name: value for name, value in options.items() if value not in (None, False, "auto")}
