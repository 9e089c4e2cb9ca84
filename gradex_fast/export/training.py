"""The recipe's training in the words that trl and LLaMA-Factory share with transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from gradex_fast.errors import GradexError
from gradex_fast.export.mixture import Mixture
from gradex_fast.model import require_adapter
from gradex_fast.sections import ModelRecipe
from gradex_fast.train import total_steps

LOSS = "The run's loss gives every row the same weight; this tool's gives every token the same."
_NAMED = ("r", "lora_alpha", "lora_dropout", "target_modules")
_OF_NO_MATTER = (
    "task_type",
    "inference_mode",
    "base_model_name_or_path",
    "revision",
    "auto_mapping",
    "peft_version",
    "fan_in_fan_out",
)


class Lora(NamedTuple):
    """New adapters; targets: names of layers, or one text as PEFT takes it."""

    rank: int
    alpha: int
    dropout: float
    targets: str | list[str]


def lora(recipe: ModelRecipe) -> Lora:
    """The run's adapters, those of ``model.like`` where it names some.

    Raises:
        GradexError: these are no plain LoRA, for which the tools have no names in common.
    """
    if recipe.like is None:
        targets = recipe.targets if isinstance(recipe.targets, str) else list(recipe.targets)
        return Lora(recipe.rank, recipe.alpha, recipe.dropout, targets)
    from peft import LoraConfig, PeftConfig

    require_adapter(Path(recipe.like))
    found, plain = PeftConfig.from_pretrained(recipe.like).to_dict(), LoraConfig().to_dict()
    if other := sorted(k for k, v in found.items() if k not in (*_NAMED, *_OF_NO_MATTER) and v != plain.get(k)):
        raise GradexError(
            f"model.like {recipe.like!r} is no plain LoRA ({', '.join(other)}): its training is written for no tool; "
            "use --to jsonl or hf-dataset, and train with the adapter_config.json there"
        )
    targets = found["target_modules"]
    named = targets if isinstance(targets, str) else sorted(targets)
    return Lora(found["r"], found["lora_alpha"], found["lora_dropout"], named)


def on_all_tokens(mixture: Mixture, chats: bool) -> bool:
    """Whether the recipe takes the loss of conversations, or else of prompts and completions, everywhere."""
    data = mixture.recipe.data
    return (data.assistant_only_loss if chats else data.completion_only_loss) is False


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
