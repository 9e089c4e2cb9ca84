"""The final model's card: what the hub reads of it, what a person reads, and that its code loads the model."""

from __future__ import annotations

import json

import pytest
import runs
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from safetensors.torch import load_file

from gradex_fast.card import SHOWN, write_card
from gradex_fast.recipe import Recipe

HOSTILE = "a|b\n# <script>alert(1)</script> [x](javascript:alert(1)) `c` ---"


@pytest.fixture(scope="module", params=["full", "lora"])
def finished(request, inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    tree = runs.language_tree(inputs, folder / "run", model={"adapter": request.param}, train={"checkpoints": 0})
    return runs.run(tree)


def test_the_hubs_parser_reads_it(finished):
    card = ModelCard.load(finished.path / "final" / "README.md")
    adapter = finished.recipe.model.adapter
    assert card.data.library_name == {"full": "transformers", "lora": "peft"}[adapter]
    assert card.data.pipeline_tag == "text-generation" and "gradex_fast" in card.data.tags
    assert card.data.base_model is None and card.data.datasets is None  # both are files of this machine
    told = {(result.dataset_name, result.metric_type): result.metric_value for result in card.data.eval_results}
    note = finished.final["selected"]
    assert told == {
        (f"target, {split}", metric): pytest.approx(note[f"{split}_{metric}"])
        for split in ("validation", "test")
        for metric in ("loss", "exact_match")
    }


def test_its_code_loads_the_model(finished, monkeypatch):
    folder = finished.path / "final"
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(folder)
    names: dict = {}
    exec(code, names)
    saved = load_file(next(folder.glob("*model.safetensors")))
    loaded = names["model"].state_dict()
    for name, value in saved.items():
        where = name if name in loaded else name.replace(".weight", ".default.weight")
        torch.testing.assert_close(loaded[where], value)
    assert names["tokenizer"]("good film")["input_ids"]


def test_it_says_what_was_kept(finished):
    text = (finished.path / "final" / "README.md").read_text()
    for source in json.loads((finished.path / "selection.json").read_text())["chosen"]:
        assert f"| {source} |" in text
    assert text.count("| yes |") == len(finished.selection.chosen)
    assert "subsets: 20" in text  # the recipe


def test_what_is_on_the_hub_has_its_name_there(inputs, tmp_path):
    tree = runs.language_tree(inputs, tmp_path / "run")
    tree["model"]["name"] = "org/base"
    tree["data"]["target"]["test"] = {"path": "org/data"}
    card = written(tmp_path, tree, ["plain"])
    assert card.data.base_model == "org/base" and card.data.datasets == ["org/data"]


def test_a_hostile_name_is_text(inputs, tmp_path):
    card = written(tmp_path, runs.language_tree(inputs, tmp_path / "run"), [HOSTILE])
    tokens = MarkdownIt().enable("table").parse(card.text)
    assert sum(token.type == "tr_open" for token in tokens) == 4  # two tables of a head and a row each
    links = [part.attrGet("href") for token in tokens for part in token.children or () if part.type == "link_open"]
    assert links == ["https://arxiv.org/abs/2409.19458"]
    assert not any(token.type == "html_block" for token in tokens)


def test_of_thousands_of_sources_the_best_are_shown(inputs, tmp_path):
    card = written(tmp_path, runs.language_tree(inputs, tmp_path / "run"), [f"s{i:04}" for i in range(2000)])
    assert "| s1999 |" in card.text and "| s0000 |" not in card.text
    assert f"Shown are {SHOWN} of 2,000" in card.text.replace("\n", " ")


def written(folder, tree, names):
    """The card of a run with these sources, the last one best."""
    sources = [
        {"name": name, "rows": 5, "score": 1.0 - index / 1e4, "chosen": True} for index, name in enumerate(names)
    ]
    final = {"selected": {"loss": 0.5, "validation_exact_match": 0.25}}
    summary = {"title": "run", "method": "ensemble", "sources": sources, "target": {"train": 0}, "final": final}
    summary |= {"warnings": [], "versions": {"gradex_fast": "0"}, "seeds": {"seed": 0}}
    return ModelCard.load(write_card(folder, Recipe.build(tree), summary))
