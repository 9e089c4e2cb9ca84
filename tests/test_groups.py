"""Sources told apart by a column: rows that name none, patterns that find a name, and expected counts."""

from __future__ import annotations

import pytest
import runs
from corpora import jsonl, language_model, pairs, recipe

from gradex_fast.data import load_corpus
from gradex_fast.errors import GradexError
from gradex_fast.plan import plan as planned


def corpus(tmp_path, tasks, **options):
    rows = [row | {"task": task} for row, task in zip(pairs(*(f"{i}+0={i}" for i in range(9))), tasks, strict=False)]
    sources = {"path": jsonl(tmp_path / "a.jsonl", rows), "by": "task", **options}
    return load_corpus(recipe(tmp_path, sources), language_model())


def refused(tmp_path, tasks, **options) -> str:
    with pytest.raises(GradexError) as error:
        corpus(tmp_path, tasks, **options)
    return str(error.value)


def test_rows_that_name_no_source_are_left_out_and_counted(tmp_path):
    found = corpus(tmp_path, ["a", None, "b", "", "a"], unassigned="drop")
    assert found.unassigned == 2
    assert [[e.id for e in source.examples] for source in found.sources] == [["a/0", "a/1"], ["b/0"]]


def test_or_are_a_source_of_their_own(tmp_path):
    found = corpus(tmp_path, [None, "a", ""], unassigned="source")
    assert (found.unassigned, found.names) == (0, ["a", "unassigned"])
    assert [e.row["prompt"] for e in found.sources[1].examples] == ["0+0=", "2+0="]
    message = refused(tmp_path, [None, "unassigned"], unassigned="source")
    assert message == "a.jsonl: a source is called 'unassigned' already; set data.sources.unassigned=drop"


PATTERNS = [{"find": r"(?i)^(give|make)\b"}, {"find": r"\?$", "source": "question"}, {"find": "and (give|make)"}]


def test_the_first_pattern_that_is_found_names_the_source(tmp_path):
    texts = ["Give one.", "Is it?", "make two?", "Take, and give.", "Nothing."]
    found = corpus(tmp_path, texts, patterns=PATTERNS, unassigned="drop")
    assert {s.name: [e.row["task"] for e in s.examples] for s in found.sources} == {
        "give": ["Give one.", "Take, and give."],
        "question": ["Is it?"],
        "make": ["make two?"],
    }
    assert found.unassigned == 1


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ({"rows": 4}, "a.jsonl: 3 rows, where the recipe expects 4"),
        ({"groups": 1000}, "a.jsonl: 2 groups, where the recipe expects 1,000"),
    ],
)
def test_counts_that_are_not_as_expected(tmp_path, expect, message):
    end = "; if these are the ones that you want, set data.sources.expect=null"
    assert refused(tmp_path, ["a", "b", "a"], expect=expect) == message + end


def test_counts_as_expected_or_under_a_limit(tmp_path):
    assert corpus(tmp_path, ["a", "b", "a"], expect={"rows": 3, "groups": 2}).names == ["a", "b"]
    assert corpus(tmp_path, ["a", "b", "a"], expect={"rows": 9, "groups": 9}, limit=2).names == ["a", "b"]


def test_counts_of_listed_sources_and_of_the_target_name_their_key(tmp_path):
    rows, held = jsonl(tmp_path / "a.jsonl", pairs("1+1=2")), jsonl(tmp_path / "v.jsonl", pairs("2+2=4"))
    cases = [
        ([{"path": rows, "expect": {"rows": 2}}], {"validation": {"path": held}}, "data.sources.0.expect=null"),
        (
            [{"path": rows}],
            {"validation": {"path": held}, "test": {"path": held, "expect": {"rows": 7}}},
            "data.target.test.expect=null",
        ),
    ]
    for sources, target, key in cases:
        with pytest.raises(GradexError, match=key):
            load_corpus(recipe(tmp_path, sources, target=target), language_model())


def test_a_run_warns_of_rows_that_are_left_out(inputs, tmp_path):
    rows = [row | {"task": task} for row, task in zip(pairs("ab=ab", "cd=cd", "ef=ef"), "xx", strict=False)]
    tree = runs.language_tree(inputs, tmp_path / "run")
    jsonl(tmp_path / "a.jsonl", [*rows, pairs("ac=ac")[0] | {"task": None}])
    tree["data"]["sources"] = {"path": str(tmp_path / "a.jsonl"), "by": "task", "unassigned": "drop"}
    assert runs.run(tree, until="prepare").warnings == ["1 rows name no source in data.sources.by and are left out"]
    assert planned(runs.Recipe.build(tree))["unassigned"] == 1
