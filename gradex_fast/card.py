"""The model card of a run's final model, README.md in its folder: what it is, what it saw, how to load it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from markupsafe import Markup

from gradex_fast.data_sections import FILE_ENDING, FileRecipe, GroupedRecipe
from gradex_fast.files import write_atomically
from gradex_fast.recipe import Recipe
from gradex_fast.report import Summary, markdown_templates, score_meaning

SHOWN = 50
"""Sources in the table; a hub's page with thousands of lines is read by nobody."""
_METRICS = ("loss", "exact_match")


def write_card(folder: Path, recipe: Recipe, summary: Summary) -> Path:
    """Write README.md beside the final model, over the one that PEFT leaves there.

    Args:
        folder: the final model's. summary: as `report.write_report` has it, with ``final["selected"]``.

    Returns:
        The path of the card.

    Raises:
        GradexError: the file cannot be written.
    """
    sources = sorted(summary["sources"], key=lambda source: _score(source))
    view = {
        **summary,
        "base": _base(recipe),
        "kept": [source for source in sources if source["chosen"]],
        "sources": sources,
        "shown": sources[:SHOWN],
        "looked": recipe.meta.patience is not None,
        "loading": map(Markup, _loading(recipe)),  # names in it are Python strings: no line begins with a fence
        "score_meaning": score_meaning(summary),
        "config": recipe.model_copy(update={"output": f"runs/{summary['title']}"}).dump(),
    }
    body = markdown_templates().get_template("card.md").render(view)
    text = f"---\n{metadata(recipe, summary).to_yaml()}\n---\n\n{body}"
    path = folder / "README.md"
    if not path.exists() or path.read_text(encoding="utf-8") != text:  # a finished folder is left as it is
        write_atomically(path, text)
    return path


def metadata(recipe: Recipe, summary: Summary) -> ModelCardData:
    """What the hub reads of a card. A base model or data on this machine alone has no name there, and is left out."""
    model, tags = recipe.model, ["gradex_fast", "data-selection"]
    return ModelCardData(
        model_name=summary["title"],
        base_model=None if Path(model.name).exists() else model.name,
        library_name="peft" if model.adapter == "lora" else "transformers",
        pipeline_tag=_task(recipe),
        tags=[*tags, "lora"] if model.adapter == "lora" else tags,
        datasets=sorted({file.path for file in _files(recipe) if _on_hub(file)}) or None,
        eval_results=list(_results(recipe, summary["final"]["selected"])),
    )


def _results(recipe: Recipe, note: Mapping[str, Any]) -> Iterator[EvalResult]:
    figures = {"validation_loss": note["loss"], **note}
    for split in ("validation", "test"):
        file = getattr(recipe.data.target, split)
        for metric in _METRICS:
            value = figures.get(f"{split}_{metric}")
            if file and value is not None and math.isfinite(value):
                data = {"dataset_type": _data_name(file), "dataset_name": f"target, {split}", "dataset_split": split}
                yield EvalResult(task_type=_task(recipe), **data, metric_type=metric, metric_value=value)


def _loading(recipe: Recipe) -> list[str]:
    """Lines of Python, run in the model's folder."""
    model = recipe.model
    classifies = model.task == "sequence-classification"
    kind = "AutoModelForSequenceClassification" if classifies else "AutoModelForCausalLM"
    options = f", num_labels={model.labels}" if classifies else ""
    lines = [f"from transformers import AutoTokenizer, {kind}", ""]
    if model.adapter == "full":
        lines.append(f'model = {kind}.from_pretrained(".")')
    else:
        lines[1:1] = ["from peft import PeftModel"]
        lines += [
            f"base = {kind}.from_pretrained({model.name!r}{options})",
            'model = PeftModel.from_pretrained(base, ".")',
        ]
    return [*lines, 'tokenizer = AutoTokenizer.from_pretrained(".")']


def _base(recipe: Recipe) -> str:
    """The pretrained model, as Markdown."""
    local = Path(recipe.model.name).exists()
    return Markup("`{}`").format(Path(recipe.model.name).name if local else recipe.model.name)


def _task(recipe: Recipe) -> str:
    return "text-classification" if recipe.model.task == "sequence-classification" else "text-generation"


def _files(recipe: Recipe) -> Iterator[FileRecipe]:
    sources, target = recipe.data.sources, recipe.data.target
    yield from (sources,) if isinstance(sources, GroupedRecipe) else sources
    yield from filter(None, (target.train, target.validation, target.test))


def _on_hub(file: FileRecipe) -> bool:
    return not FILE_ENDING.search(file.path)


def _data_name(file: FileRecipe) -> str:
    return file.path if _on_hub(file) else Path(file.path).name.partition(".")[0]


def _score(source: Mapping[str, Any]) -> float:
    score = source.get("score")
    return score if score is not None and math.isfinite(score) else math.inf
