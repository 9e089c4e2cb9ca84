"""The packaged recipes on real rows, in the folder that the environment variable GRADEX_DATA names."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
import zstandard
from corpora import decoded, jsonl, language_model, pairs

from gradex_fast.data import load_corpus
from gradex_fast.data.groups import grouped
from gradex_fast.data.read import read
from gradex_fast.recipe import Recipe
from gradex_fast.types import UNSUPERVISED, Example

FOLDER = Path(os.environ.get("GRADEX_DATA", "no folder is named by GRADEX_DATA"))
ALPACA = "alpaca-cc-by-nc-4.0/alpaca_52k_38tasks.jsonl.zst"
MODEL = "model.name=none"


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (FOLDER / name).exists(), reason=f"{FOLDER / name} is not there")


def said(example: Example) -> str:
    on = example.labels != UNSUPERVISED
    return decoded(language_model(), example.input_ids[on])


def split(name: str, folder: Path) -> None:
    """``train.jsonl`` and ``dev.jsonl`` in `folder`, of at most 500 rows of `name` each."""
    parts: dict[str, list] = {"train": [], "dev": []}
    with zstandard.open(FOLDER / name, "rb") as stream, io.TextIOWrapper(stream, encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            parts[row["split"]].append(row)
    for part, rows in parts.items():
        jsonl(folder / f"{part}.jsonl", rows[:500])


@needs(ALPACA)
def test_alpacas_types_by_the_recipes_patterns_and_by_a_column():
    place = (MODEL, "data.target.validation.path=v.jsonl", f"data.folder={FOLDER}", f"data.sources.path={ALPACA}")
    recipe = Recipe.load("alpaca", place)
    rows = read(recipe.data.sources, recipe.data.folder)
    by_pattern, left_out = grouped(recipe.data.sources, rows)  # checks 52,002 rows and 38 types
    assert (sum(map(len, by_pattern.values())), left_out) == (44_035, 7_967)  # the figures of the recipe's comments
    column = Recipe.load("alpaca", (*place, "data.sources.by=task", "data.sources.patterns=null")).data.sources
    by_column, none = grouped(column, rows)
    assert (by_column.keys(), none) == (by_pattern.keys(), 7_755)
    same = sum(row.values["task"] == name for name, rows in by_pattern.items() for row in rows)
    assert same == 44_018


HELD_OUT = ("data.target.validation.path=dev.jsonl", "data.target.test.path=dev.jsonl")


def chains(name: str, folder: Path, prompt: str | None = None) -> list[str]:
    """What the recipe takes the loss on, the overrides being those of its comments."""
    keys = ["data.sources.0", "data.target.validation", "data.target.test"]
    ends = ["expect=null", "words=null", 'completion_template=" {rationale} So the answer is {answer}."']
    ends += [f"prompt_template={json.dumps(prompt)}"] if prompt else []
    places = [MODEL, f"data.folder={folder}", "data.sources.0.path=train.jsonl", *HELD_OUT, "data.on_overlap=drop"]
    places += ["data.max_length=4096"]  # one token a character
    recipe = Recipe.load(name, (*places, *(f"{key}.{end}" for key in keys for end in ends)))
    assert recipe.clusters.count == 100
    corpus = load_corpus(recipe, language_model())
    return [said(example) for example in (*corpus.sources[0].examples, *corpus.validation.examples)]


@needs("cot/strategyqa.jsonl.zst")
def test_strategyqa_with_chains(tmp_path):
    split("cot/strategyqa.jsonl.zst", tmp_path)
    found = chains("strategyqa", tmp_path)
    assert len(found) == 500 + 229
    assert all(text.endswith(("So the answer is yes.<eos>", "So the answer is no.<eos>")) for text in found)


@needs("cot/commonsenseqa_ecqa.jsonl.zst")
def test_commonsenseqa_with_chains(tmp_path):
    split("cot/commonsenseqa_ecqa.jsonl.zst", tmp_path)
    letters = " ".join(f"({letter}) {{options[{i}]}}" for i, letter in enumerate("abcde"))
    found = chains("commonsenseqa", tmp_path, f"Q: {{question}}\n{letters}\nA:")
    assert len(found) == 1000
    assert found[0].endswith("So the answer is bloody mess.<eos>")


@needs("multitask/multitask_shared.jsonl.zst")
def test_the_flan_recipe_on_another_file_of_many_tasks(tmp_path):
    jsonl(tmp_path / "v.jsonl", pairs("8+1=9"))
    ends = ["path=multitask/multitask_shared.jsonl.zst", "by=task", "completion=output", "expect=null", "limit=1000"]
    ends.append('prompt_template="{instruction}\\n{input}\\n"')
    target = f"data.target.validation.path={tmp_path / 'v.jsonl'}"
    places = [MODEL, f"data.folder={FOLDER}", target, *(f"data.sources.{end}" for end in ends)]
    corpus = load_corpus(Recipe.load("flan_v2", (*places, "data.max_length=4096")), language_model())
    assert len(corpus.sources) > 5
    assert sum(len(source.examples) + source.dropped for source in corpus.sources) == 1000
