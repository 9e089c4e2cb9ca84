"""The base model and its adapter: loading, saving, and the loss of every sample. Knows no data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    set_seed,
)

from gradex_fast.errors import GradexError
from gradex_fast.files import checksum, file_checksum
from gradex_fast.placement import cast_adapters, loading_options, placed, recompute
from gradex_fast.sections import ModelRecipe

_POSITIONS_AFTER_PAD = ("camembert", "data2vec-text", "longformer", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl")
"""Their first position is pad_token_id + 1."""


def load_tokenizer(recipe: ModelRecipe) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a pad token (EOS where it has none; padding is masked by length)."""
    _config(recipe, recipe.name)
    with _explained(f"model.name {recipe.name!r}: no tokenizer could be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(recipe.name, **_hub(recipe))
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise GradexError(f"model.name {recipe.name!r}: its tokenizer has neither a pad nor an EOS token; add one")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(recipe: ModelRecipe, seed: int, device: str, trained: Path | None = None) -> nn.Module:
    """The pretrained model with fresh trainable parameters, or those saved in `trained`.

    New parameters (LoRA's A, a classifier's head) depend on `seed` alone. Only safetensors are read.

    Raises:
        GradexError: the model cannot be found, or its architecture is not known to transformers.
    """
    set_seed(seed)
    full = trained if trained is not None and recipe.adapter == "full" else None
    model = placed(_pretrained(recipe, str(full or recipe.name), device), recipe, device)
    if recipe.gradient_checkpointing:
        recompute(model)
    return _with_adapter(model, recipe, trained) if recipe.adapter == "lora" else model


def load_outline(recipe: ModelRecipe) -> nn.Module:
    """The model without weights, on the meta device: its shapes and types, adapters and what is trained.

    With eager attention, and of experts those that a token is sent to: what needs no look at the data.
    """
    with torch.device("meta"):
        model = _configured(recipe.model_copy(update={"attention": "eager"}))
    for module in model.modules():
        if hasattr(module, "set_experts_implementation"):
            module.set_experts_implementation("batched_mm")
            break
    return model


def random_model(recipe: ModelRecipe, seed: int, device: str) -> nn.Module:
    """The model with random weights, made on the device: of what was pretrained only the configuration is read.

    Raises:
        GradexError: its configuration cannot be found, or recipes do not train such a model.
    """
    _check_task(recipe, _config(recipe, recipe.name))
    set_seed(seed)
    with torch.device(device):
        model = _configured(recipe)
    model.config.use_cache = False
    return model


def save_model(model: nn.Module, folder: Path, values: Mapping[str, torch.Tensor] | None = None) -> None:
    """A PEFT adapter for LoRA, the whole model otherwise; `load_model(..., trained=folder)` reads it.

    Args:
        values: in place of the model's own, by their names: of one of which this process has but a part.
    """
    model.save_pretrained(folder, safe_serialization=True, state_dict=values)


def fingerprint(recipe: ModelRecipe, adapter: str | None = None) -> str:
    """Changes with the pretrained weights: the hub's commit, or a folder's config.json and the head of every tensor.

    And with the content of the PEFT folders: the one that new adapters are like, and the one that holds `adapter`.
    """
    folder = Path(recipe.name)
    if not folder.is_dir():
        commit = getattr(_config(recipe, recipe.name), "_commit_hash", None)
        return checksum(recipe.name, commit or "", *_adapter_parts(recipe, adapter))
    with _explained(f"model.name {recipe.name!r} cannot be read"):
        parts = [(folder / "config.json").read_bytes()]
        for path in sorted(folder.glob("*.safetensors")):
            parts += _tensor_heads(path)
    return checksum(*parts, *_adapter_parts(recipe, adapter))


def position_limit(recipe: ModelRecipe) -> int | None:
    """The longest row, in tokens, that the model's positions reach; None where they have no end (T5, ALiBi)."""
    config = _config(recipe, recipe.name).get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    if limit is not None and config.model_type in _POSITIONS_AFTER_PAD:
        limit -= config.pad_token_id + 1
    return limit if limit and limit > 0 else None


def computing_type(recipe: ModelRecipe) -> str:
    """What the base computes in, such as "bfloat16"; where the recipe leaves it open, the type on disk, or float32."""
    if recipe.dtype != "auto":
        return recipe.dtype
    return str(getattr(_config(recipe, recipe.name), "dtype", None) or torch.float32).removeprefix("torch.")


def _pretrained(recipe: ModelRecipe, name: str, device: str) -> nn.Module:
    config = _config(recipe, name)
    placing = loading_options(recipe, device, getattr(config, "dtype", None))
    options: dict[str, Any] = {"dtype": recipe.dtype, **_hub(recipe), **placing}
    if recipe.attention:
        options["attn_implementation"] = recipe.attention
    _check_task(recipe, config)
    kind, own = _kind(recipe)
    options |= own
    with _explained(f"model.name {name!r} cannot be loaded"):
        model = kind.from_pretrained(name, use_safetensors=True, **options)
    model.config.use_cache = False
    return model


def _configured(recipe: ModelRecipe) -> nn.Module:
    """From the configuration alone, with the recipe's adapter."""
    config = _config(recipe, recipe.name)
    kind, options = _kind(recipe)
    for name, value in options.items():
        setattr(config, name, value)
    named = {} if recipe.dtype == "auto" else {"dtype": getattr(torch, recipe.dtype)}
    named |= {"attn_implementation": recipe.attention} if recipe.attention else {}
    model = kind.from_config(config, **named, trust_remote_code=recipe.trust_remote_code)
    return _with_adapter(model, recipe, None) if recipe.adapter == "lora" else model


def _kind(recipe: ModelRecipe) -> tuple[Any, dict[str, Any]]:
    """The class that loads it, and options of its configuration."""
    if recipe.task == "sequence-classification":
        return AutoModelForSequenceClassification, {"num_labels": recipe.labels}
    return AutoModelForCausalLM, {}


def _check_task(recipe: ModelRecipe, config: PreTrainedConfig) -> None:
    if recipe.task == "sequence-classification":
        if recipe.labels is None:
            raise GradexError("model.labels is missing: a classifier needs its number of classes")
        has_head = any("SequenceClassification" in kind for kind in config.architectures or ())
        if has_head and config.num_labels != recipe.labels:
            raise GradexError(f"model.labels is {recipe.labels}, but {recipe.name!r} has {config.num_labels} classes")
    elif config.is_encoder_decoder:
        raise GradexError(f"model.name {recipe.name!r} is an encoder-decoder: recipes train decoder-only models")
    elif type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        raise GradexError(f"model.name {recipe.name!r} is an encoder: set model.task to sequence-classification")


def _with_adapter(model: nn.Module, recipe: ModelRecipe, trained: Path | None) -> nn.Module:
    adapted = _adapted(model, recipe, trained)
    if recipe.adapter_dtype != "float32":  # which PEFT makes of adapters beside 16 bits
        cast_adapters(adapted, getattr(torch, recipe.adapter_dtype))
    return adapted


def _adapted(model: nn.Module, recipe: ModelRecipe, trained: Path | None) -> nn.Module:
    from peft import LoraConfig, PeftConfig, PeftModel, TaskType, get_peft_model

    if trained is not None:
        require_adapter(trained)
        with _explained(f"{trained} is no adapter for {recipe.name!r}"):
            return PeftModel.from_pretrained(model, trained, is_trainable=True)
    if recipe.like is not None:
        require_adapter(Path(recipe.like))
        with _explained(f"model.like {recipe.like!r}"):
            config = PeftConfig.from_pretrained(recipe.like)
            config.inference_mode, config.base_model_name_or_path = False, recipe.name
            return get_peft_model(model, config)
    classifies = recipe.task == "sequence-classification"
    targets = recipe.targets if isinstance(recipe.targets, str) else list(recipe.targets)
    with _explained(f"model.targets {recipe.targets!r}"):
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS if classifies else TaskType.CAUSAL_LM,
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            target_modules=targets,
        )
        return get_peft_model(model, config)


def require_adapter(folder: Path) -> None:
    """Raises GradexError for a folder without a PEFT adapter in safetensors: no pickle is ever loaded."""
    if not (folder / "adapter_config.json").is_file():
        raise GradexError(f"{folder} holds no adapter_config.json: it is no PEFT adapter's folder")
    if not (folder / "adapter_model.safetensors").is_file():
        raise GradexError(
            f"{folder} holds no adapter_model.safetensors, and no other format is read; load the adapter where it "
            "comes from and save it with save_pretrained"
        )


def _adapter_parts(recipe: ModelRecipe, adapter: str | None) -> Iterator[str]:
    """Checksums of a PEFT folder's configuration, and of the weights of one that is θ*."""
    for folder in (Path(name) for name in (recipe.like, adapter) if name is not None):
        require_adapter(folder)
        yield file_checksum(folder / "adapter_config.json")
    if adapter is not None:
        yield file_checksum(Path(adapter) / "adapter_model.safetensors")


def _config(recipe: ModelRecipe, name: str) -> PreTrainedConfig:
    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise GradexError(f"model.name {name!r}: there is no such folder")
    with _explained(f"model.name {name!r} cannot be loaded"):
        return AutoConfig.from_pretrained(name, **_hub(recipe))


def _tensor_heads(path: Path) -> Iterator[bytes]:
    """A safetensors file's header, and the first 4 KiB of each of its tensors: training moves them all."""
    with open(path, "rb") as file:
        start = int.from_bytes(file.read(8), "little")
        yield (header := file.read(start))
        for tensor in json.loads(header).values():
            if "data_offsets" in tensor:
                begin, end = tensor["data_offsets"]
                file.seek(8 + start + begin)
                yield file.read(min(end - begin, 4096))


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """A library's error as one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise GradexError(f"{what}: {_first_line(error)}") from error


def _hub(recipe: ModelRecipe) -> dict[str, Any]:
    return {"revision": recipe.revision, "trust_remote_code": recipe.trust_remote_code}


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
