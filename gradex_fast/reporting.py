"""Where a training reports to: TensorBoard, Weights & Biases or MLflow, by transformers' own callbacks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from transformers import TrainerCallback
from transformers.integrations import (
    TensorBoardCallback,
    is_mlflow_available,
    is_tensorboard_available,
    is_wandb_available,
)

from gradex_fast.errors import GradexError
from gradex_fast.sections import TrainRecipe

_AVAILABLE = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available, "mlflow": is_mlflow_available}


def require_reports(recipe: TrainRecipe) -> None:
    """Raises GradexError where a package that ``train.report_to`` names is not installed."""
    for name in recipe.report_to:
        if not _AVAILABLE[name]():
            raise GradexError(f"train.report_to: {name} is not installed: pip install {name}")


def place_reports(callbacks: Iterable[TrainerCallback], folder: Path) -> None:
    """TensorBoard's files would lie among the checkpoints in `folder`, RUN/checkpoints/NAME, and go with them.

    They lie in RUN/logs/NAME, or where the environment says.
    """
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder.resolve().parents[1] / "logs" / folder.name)


def end_reports(recipe: TrainRecipe) -> None:
    """The next training of this process is a run of its own. The other callbacks end theirs themselves."""
    if "wandb" in recipe.report_to:
        import wandb

        wandb.finish()
