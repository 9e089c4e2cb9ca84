"""The packaged recipes: whole, pinned, and what they make of rows with the columns of their data sets."""

from __future__ import annotations

import json

import pytest
import yaml
from corpora import decoded, jsonl, language_model, pairs

from gradex_fast import cli, packaged
from gradex_fast.data import load_corpus
from gradex_fast.data.read import read
from gradex_fast.data_sections import GroupedRecipe
from gradex_fast.errors import GradexError
from gradex_fast.recipe import Recipe
from gradex_fast.types import UNSUPERVISED, Corpus

NAMES = ["alpaca", "commonsenseqa", "cot", "flan_v2", "glue", "strategyqa", "toxigen", "truthfulqa"]
TARGETS = ("toxigen", "truthfulqa")
UNPINNED = {"commonsenseqa", "cot", "flan_v2", "toxigen"}
"""Of these no published revision could be found; their comments say so."""

GIVEN = ("model.name=none", "data.target.validation.path=v.jsonl")


def complete(name: str, *overrides: str) -> Recipe:
    base = ("alpaca", name) if name in TARGETS else (name,)
    needs = GIVEN if name not in (*TARGETS, "strategyqa", "commonsenseqa") else GIVEN[:1]
    return Recipe.load(base[0], (*base[1:], *needs, *overrides))


def files_of(recipe: Recipe, name: str) -> list:
    target = [
        file for file in (recipe.data.target.validation, recipe.data.target.test) if file and file.path != "v.jsonl"
    ]
    grouped = isinstance(recipe.data.sources, GroupedRecipe)
    sources = [recipe.data.sources] if grouped else [*recipe.data.sources]
    return target if name in TARGETS else [*sources, *target]


def test_the_list_has_the_papers_data_with_licences(capsys):
    assert packaged.names() == NAMES
    assert cli.main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if not line.startswith(" ")] == NAMES
    assert out.count("Licence: ") == len(NAMES)
    assert cli.main(["recipes", "--json"]) == 0
    assert [recipe["name"] for recipe in json.loads(capsys.readouterr().out)] == NAMES


def test_a_printed_recipe_is_the_packaged_one(tmp_path, capsys, monkeypatch):
    assert cli.main(["recipes", "strategyqa"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert Recipe.load(tmp_path / "mine.yaml", GIVEN[:1]) == Recipe.load("strategyqa", GIVEN[:1])
    assert cli.main(["recipes", "strategyqa", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["yaml"] == (tmp_path / "mine.yaml").read_text()
    assert cli.main(["recipes", "strategy"]) == 2
    message = f"gradex-fast: there is no packaged recipe 'strategy'; there are {', '.join(NAMES)}\n"
    assert capsys.readouterr().err == message
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alpaca").write_text(yaml.safe_dump({"data": {"sources": [{"path": "a"}]}}))
    assert Recipe.load("alpaca", GIVEN).data.sources[0].path == "a"  # a file of that name is taken first


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_of_the_hub_with_expected_counts_and_pinned_unless_the_comments_say_why_not(name):
    files = files_of(complete(name), name)
    assert all("/" in file.path for file in files)
    assert files[0].expect is not None
    pins = {file.revision for file in files}
    if name in UNPINNED:
        assert pins == {None}
        assert "revision" in " ".join(line for line in packaged.text(name).splitlines() if line.startswith("#"))
    else:
        assert len(pins) == 1
        assert len(pins.pop()) == 40


def test_the_hub_is_asked_for_what_the_recipe_says(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("datasets.load_dataset", lambda *a, **options: calls.append((a, options)) or [])
    for name in ("flan_v2", "cot", "truthfulqa"):
        read(files_of(complete(name), name)[0], tmp_path)
    revision = {"revision": "741b8276f2d1982aa3d5b832d3ee81ed3b896490"}
    flan = {"split": "train", "revision": None}
    assert calls == [
        (("hamishivi/tulu_mix_store", None), {**flan, "data_files": "flan_v2_resampled_100k.jsonl"}),
        (("hamishivi/tulu_mix_store", None), {**flan, "data_files": ["cot_zsopt.jsonl", "cot_fsopt.jsonl"]}),
        (("truthfulqa/truthful_qa", "generation"), {"split": "validation[:408]", **revision}),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_recipe_leaves_open_is_asked_for(name):
    with pytest.raises(
        GradexError, match=r"^recipe: model\.name, the pretrained model .* is missing: add model\.name="
    ):
        Recipe.load(name)
    if name not in ("commonsenseqa", "strategyqa"):
        with pytest.raises(GradexError, match=r"^recipe: data\.(target\.validation\.path|sources), .* is missing: add"):
            Recipe.load(name, GIVEN[:1])


def loaded(tmp_path, name: str, rows: list[dict], *overrides: str) -> Corpus:
    """The recipe with every path a file of `rows`, and without its counts."""
    jsonl(tmp_path / "rows.jsonl", rows)
    jsonl(tmp_path / "v.jsonl", pairs("8+1=9"))
    if name in ("flan_v2", "cot", "alpaca", *TARGETS):
        places = ["data.sources.path=rows.jsonl", "data.sources.expect=null"]
    else:
        keys = [source.name for source in complete(name).data.sources]
        places = [f"data.sources.{key}.{end}" for key in keys for end in ("path=rows.jsonl", "expect=null")]
    places += [f"data.folder={tmp_path}", *overrides]
    return load_corpus(complete(name, *places), language_model())


def said(example) -> tuple[str, str]:
    """The prompt, and what the loss is taken on."""
    tokenizer, on = language_model(), example.labels != UNSUPERVISED
    return decoded(tokenizer, example.input_ids[~on]), decoded(tokenizer, example.input_ids[on])


@pytest.mark.parametrize("name", ["flan_v2", "cot"])
def test_flan_rows(tmp_path, name):
    rows = [{"inputs": f"Q{i}?", "targets": "A", "_task_name": f"t{i % 2}"} for i in range(3)]
    corpus = loaded(tmp_path, name, rows)
    assert [(s.name, len(s.examples)) for s in corpus.sources] == [("t0", 2), ("t1", 1)]
    assert said(corpus.sources[1].examples[0]) == ("Q1?\n", "A<eos>")


def test_alpaca_rows_without_a_column_of_types(tmp_path):
    asked = ["Please, could you Name it", "Say: (and) Name it", "Is it red", "Red, or not?", "Run.\nWrite it", "Red!"]
    rows = [{"instruction": text, "input": "", "output": "o"} for text in asked]
    corpus = loaded(tmp_path, "alpaca", rows)
    found = {source.name: [e.row["instruction"] for e in source.examples] for source in corpus.sources}
    assert found == {"name": [asked[0]], "question": asked[2:4], "write": [asked[4]]}
    assert corpus.unassigned == 2
    assert said(corpus.sources[0].examples[0])[1] == "o<eos>"


def test_alpaca_rows_with_one(tmp_path):
    rows = [
        {"instruction": "Name it", "output": "o", "task": "x"},
        {"instruction": "Is it", "output": "o", "task": "y"},
    ]
    corpus = loaded(tmp_path, "alpaca", rows, "data.sources.by=task", "data.sources.patterns=null")
    assert corpus.names == ["x", "y"]


def test_strategyqa_rows(tmp_path):
    rows = [{"question": f"Is {i} even?", "facts": "2 is even.", "answer": i % 2 == 0} for i in range(4)]
    held = [{"question": "Is 8 even?", "facts": "8 is.", "answer": True}]
    jsonl(tmp_path / "held.jsonl", held)
    ends = ("path=held.jsonl", "expect=null")
    places = [f"data.target.{part}.{end}" for part in ("validation", "test") for end in ends]
    corpus = loaded(tmp_path, "strategyqa", rows, *places)
    assert [said(e) for e in corpus.sources[0].examples[:2]] == [
        ("Q: Is 0 even?\nA:", " 2 is even. So the answer is yes.<eos>"),
        ("Q: Is 1 even?\nA:", " 2 is even. So the answer is no.<eos>"),
    ]
    assert said(corpus.validation.examples[0]) == ("Q: Is 8 even?\nA:", " 8 is. So the answer is yes.<eos>")


def test_commonsenseqa_rows(tmp_path):
    options = {f"q_op{i}": word for i, word in enumerate(["ash", "bay", "cat", "dog", "elm"], 1)}
    rows = [{"q_text": "What barks?", **options, "q_ans": "dog", "taskB": "Dogs bark."}]
    jsonl(tmp_path / "held.jsonl", [{**rows[0], "q_text": "What is a pet?"}])
    places = [f"data.target.{part}.path=held.jsonl" for part in ("validation", "test")]
    corpus = loaded(tmp_path, "commonsenseqa", rows, *places)
    prompt = "Q: What barks?\n(a) ash (b) bay (c) cat (d) dog (e) elm\nA:"
    assert said(corpus.sources[0].examples[0]) == (prompt, " Dogs bark. So the answer is dog.<eos>")
    assert said(corpus.test.examples[0])[1] == " Dogs bark. So the answer is dog.<eos>"


def test_truthfulqa_and_toxigen_rows(tmp_path):
    rows = [{"instruction": "Name it", "input": "", "output": "o"}]
    jsonl(tmp_path / "t.jsonl", [{"question": "Is it?", "best_answer": "No.", "text": "A group is."}])
    ends = ("path=t.jsonl", "expect=null")
    both = [f"data.target.{part}.{end}" for part in ("validation", "test") for end in ends]
    assert said(loaded(tmp_path, "truthfulqa", rows, *both).validation.examples[0]) == ("Q: Is it?\nA:", " No.<eos>")
    corpus = loaded(tmp_path, "toxigen", rows, *both[:2])
    assert said(corpus.validation.examples[0]) == ("A", " group is.<eos>")


GLUE = {
    "cola": ({"sentence": "x"}, 1, " yes<eos>"),
    "sst2": ({"sentence": "x"}, 0, " negative<eos>"),
    "mrpc": ({"sentence1": "x", "sentence2": "y"}, 0, " no<eos>"),
    "qqp": ({"question1": "x", "question2": "y"}, 1, " yes<eos>"),
    "stsb": ({"sentence1": "x", "sentence2": "y"}, 3.8, " 3.8<eos>"),
    "mnli": ({"premise": "x", "hypothesis": "y"}, 1, " maybe<eos>"),
    "qnli": ({"question": "x", "sentence": "y"}, 0, " yes<eos>"),
    "rte": ({"sentence1": "x", "sentence2": "y"}, 0, " yes<eos>"),
    "wnli": ({"sentence1": "x", "sentence2": "y"}, 0, " no<eos>"),
}
"""Columns, a label (QNLI's and RTE's 0 is entailment, WNLI's is not) and its words."""


def test_glue_rows(tmp_path):
    places = []
    for name, (columns, label, _) in GLUE.items():
        jsonl(tmp_path / f"{name}.jsonl", [{**columns, "label": label, "idx": 0}])
        places += [f"data.sources.{name}.path={name}.jsonl", f"data.sources.{name}.expect=null"]
    jsonl(tmp_path / "v.jsonl", pairs("8+1=9"))
    corpus = load_corpus(complete("glue", *places, f"data.folder={tmp_path}"), language_model())
    assert {s.name: said(s.examples[0])[1] for s in corpus.sources} == {n: words for n, (_, _, words) in GLUE.items()}
    assert said(corpus.sources[0].examples[0])[0] == "Sentence: x\nIs it acceptable English?"


def test_a_count_that_is_not_as_expected_is_said_with_the_key(tmp_path):
    jsonl(tmp_path / "a.jsonl", [{"instruction": "Name it", "input": "", "output": "o"}])
    jsonl(tmp_path / "v.jsonl", pairs("8+1=9"))
    recipe = complete("alpaca", f"data.folder={tmp_path}", "data.sources.path=a.jsonl")
    with pytest.raises(GradexError) as error:
        load_corpus(recipe, language_model())
    assert str(error.value) == (
        "a.jsonl: 1 rows, where the recipe expects 52,002; if these are the ones that you want, "
        "set data.sources.expect=null"
    )
