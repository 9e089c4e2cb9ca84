"""A recipe survives YAML, takes overrides, and says in one line what it refuses."""

from __future__ import annotations

import copy

import pytest
import yaml

from gradex_fast.data_sections import GroupedRecipe, SourceRecipe
from gradex_fast.errors import GradexError
from gradex_fast.recipe import Recipe

LISTED = {
    "model": {"name": "gpt2"},
    "data": {
        "sources": [{"path": "a.jsonl"}, {"path": "org/b", "name": "b", "config": "main"}],
        "target": {"validation": {"path": "v.jsonl"}},
    },
}
GROUPED = copy.deepcopy(LISTED)
GROUPED["data"]["sources"] = {"path": "mix.jsonl", "by": "task", "limit": 10}


def changed(key: str, value) -> dict:
    tree = copy.deepcopy(LISTED)
    *path, last = key.split(".")
    branch = tree
    for part in path:
        branch = branch[int(part)] if part.isdecimal() else branch.setdefault(part, {})
    branch[last] = value
    return tree


def refused(call, *arguments) -> str:
    with pytest.raises(GradexError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("tree", "kind"), [(LISTED, tuple), (GROUPED, GroupedRecipe)])
def test_round_trip_through_yaml(tmp_path, tree, kind):
    first = Recipe.build(tree)
    (tmp_path / "recipe.yaml").write_text(first.dump())
    second = Recipe.load(tmp_path / "recipe.yaml")
    assert second == first
    assert isinstance(second.data.sources, kind)


def test_the_sources_keep_their_kind_and_values():
    sources = Recipe.build(LISTED).data.sources
    assert sources == (SourceRecipe(path="a.jsonl"), SourceRecipe(path="org/b", name="b", config="main"))
    assert Recipe.build(GROUPED).data.sources.by == "task"


def test_overrides_are_yaml_values(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(LISTED))
    overrides = ("seed=3", "train.learning_rate=1e-3", "data.on_overlap=drop", "model.revision=null")
    recipe = Recipe.load(tmp_path / "recipe.yaml", overrides)
    assert (recipe.seed, recipe.train.learning_rate) == (3, 1e-3)
    assert (recipe.data.on_overlap, recipe.model.revision) == ("drop", None)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("sed", "recipe: unknown key 'sed'; did you mean 'seed'?"),
        ("data.max_lenght", "recipe: unknown key 'data.max_lenght'; did you mean 'max_length'?"),
        ("data.sources.0.pth", "recipe: unknown key 'data.sources.0.pth'; did you mean 'path'?"),
        ("data.target.validation.promt", "recipe: unknown key 'data.target.validation.promt'; did you mean 'prompt'?"),
        ("train.qqqq", "recipe: unknown key 'train.qqqq'"),
    ],
)
def test_unknown_keys(key, message):
    assert refused(Recipe.build, changed(key, "a.jsonl")) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"path": "a.jsonl", "bye": "task"}, "recipe: data.sources.by: Field required"),
        ({"path": "a", "by": "t", "limt": 1}, "recipe: unknown key 'data.sources.limt'; did you mean 'limit'?"),
        ({"path": "a", "by": "t", "grouped": 1}, "recipe: unknown key 'data.sources.grouped'; did you mean 'groups'?"),
        ([{"name": "a"}], "recipe: data.sources.0.path: Field required"),
        ([], "recipe: data.sources: Tuple should have at least 1 item after validation, not 0"),
        ("a.jsonl", "recipe: data.sources: Input should be a valid tuple"),
        (None, "recipe: data.sources: Input should be a valid tuple"),
    ],
)
def test_sources_of_neither_kind(value, message):
    assert refused(Recipe.build, changed("data.sources", value)) == message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", "many", "recipe: seed: Input should be a valid integer, unable to parse string as an integer"),
        ("data.max_length", 1, "recipe: data.max_length: Input should be greater than or equal to 2"),
        ("data.on_overlap", "ignore", "recipe: data.on_overlap: Input should be 'error' or 'drop'"),
        (
            "sketch.distribution",
            "cauchy",
            "recipe: sketch.distribution: Input should be 'gaussian', 'rademacher' or 'tensorsketch'",
        ),
        ("data.sources.1.limit", 0, "recipe: data.sources.1.limit: Input should be greater than or equal to 1"),
        ("model", "gpt2", "recipe: model: Input should be a valid dictionary or instance of ModelRecipe"),
        (
            "estimate.ridge",
            "auto",
            "recipe: estimate: Value error, ridge: auto needs anchors of 3 or more to choose by",
        ),
    ],
)
def test_bad_values(key, value, message):
    assert refused(Recipe.build, changed(key, value)) == message


def test_a_recipe_that_is_not_one(tmp_path):
    path = tmp_path / "recipe.yaml"
    assert refused(Recipe.load, path) == (
        f"cannot read recipe {path}: no such file, nor a recipe of that name (gradex-fast recipes lists them)"
    )
    assert refused(Recipe.load, tmp_path) == f"cannot read recipe {tmp_path}: it is a folder"
    (tmp_path / "config.yaml").write_text("")
    assert refused(Recipe.load, tmp_path).endswith(f"a folder; the recipe of that run is {tmp_path / 'config.yaml'}")
    path.write_text("a: [1\nb: 2")
    assert refused(Recipe.load, path).startswith(f"cannot read recipe {path}: ")
    path.write_text("- a")
    assert refused(Recipe.load, path) == f"recipe {path} must be a mapping of sections (model:, data:, ...)"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "override 'seed' must read section.key=value"),
        ("model.name.x=1", "override 'model.name.x=1': name is not a section"),
        ("data.sources.c.path=b", "override 'data.sources.c.path=b': there is no 'c'; there are a, b"),
        ("data.sources.0=b", "override 'data.sources.0=b': sources is a list; name the item and the key in it"),
        ("train.epoch=1", "recipe: unknown key 'train.epoch'; did you mean 'epochs'?"),
    ],
)
def test_overrides_that_are_refused(tmp_path, override, message):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(LISTED))
    assert refused(Recipe.load, tmp_path / "recipe.yaml", (override,)) == message


def test_an_item_of_a_list_is_named_by_number_name_or_stem(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(LISTED))
    overrides = ("data.sources.0.limit=1", "data.sources.a.name=x", "data.sources.b.split=test")
    first, second = Recipe.load(tmp_path / "recipe.yaml", overrides).data.sources
    assert (first.limit, first.name, first.split) == (1, "x", "train")
    assert (second.limit, second.name, second.split) == (None, "b", "test")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("data.sources.b.path=b.jsonl.zst",), (None, None, "train", None)),
        (("data.sources.b.split=test", "data.sources.b.path=b.csv"), (None, None, "test", None)),
        (("data.sources.b.path=org/c",), ("main", "v1", "dev", "x")),
        (("data.sources.b.limit=3",), ("main", "v1", "dev", "x")),
    ],
)
def test_a_path_to_a_file_takes_away_the_keys_of_hub_data_sets(tmp_path, overrides, expected):
    tree = copy.deepcopy(LISTED)
    tree["data"]["sources"][1] |= {"revision": "v1", "split": "dev", "files": "x"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    found = Recipe.load(tmp_path / "recipe.yaml", overrides).data.sources[1]
    assert (found.config, found.revision, found.split, found.files) == expected


def test_a_recipe_is_laid_over_another_and_overrides_over_both(tmp_path):
    target = {"data": {"target": {"test": {"path": "t.jsonl"}, "validation": {"path": "w.jsonl"}}}, "seed": 1}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(LISTED))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(target))
    recipe = Recipe.load(tmp_path / "a.yaml", ("seed=2", str(tmp_path / "b.yaml")))
    assert (recipe.seed, recipe.model.name, len(recipe.data.sources)) == (2, "gpt2", 2)
    assert (recipe.data.target.validation.path, recipe.data.target.test.path) == ("w.jsonl", "t.jsonl")


def test_aliases_of_yaml_are_changed_one_by_one(tmp_path):
    target = "{validation: &rows {path: v, words: &w {y: {1: a}}, prompt_template: '{y}'}, test: {<<: *rows}}"
    text = f"model: {{name: gpt2}}\ndata: {{sources: [{{path: a}}], target: {target}}}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    found = Recipe.load(tmp_path / "recipe.yaml", ("data.target.test.words.y.1=b",)).data.target
    assert (found.validation.words, found.test.words) == ({"y": {"1": "a"}}, {"y": {"1": "b"}})


@pytest.mark.parametrize(
    ("section", "key"),
    [("model", "model.name"), ("data.target", "data.target.validation.path"), ("data.sources", "data.sources")],
)
def test_what_a_recipe_must_be_given(section, key):
    tree = copy.deepcopy(LISTED)
    *parents, last = section.split(".")
    branch = tree
    for parent in parents:
        branch = branch[parent]
    del branch[last]
    message = refused(Recipe.build, tree)
    assert message.startswith(f"recipe: {key}, ")
    assert message.endswith(f"is missing: add {key}=... or lay over a recipe that has it")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"prompt_template": "Q: {q"}, "'Q: {q' is no template: expected '}' before end of string"),
        ({"prompt_template": "Q: {}"}, "'Q: {}' is no template: {} is no column"),
        ({"prompt_template": "Q: {q.__class__}"}, "'Q: {q.__class__}' is no template: {q.__class__} is no column"),
        ({"prompt_template": "Q: {q!r}"}, "'Q: {q!r}' is no template: {q} is no column"),
        ({"completion_template": "yes"}, "'yes' names no column; a column is {name}"),
        ({"prompt": "q", "prompt_template": "{q}"}, "give prompt or prompt_template, not both"),
        ({"prompt_template": "{q}", "words": {"a": {1: "x"}}}, "words has the column 'a', which is in no template"),
    ],
)
def test_templates_are_checked_with_the_recipe(file, message):
    found = refused(Recipe.build, changed("data.sources", [{"path": "a.jsonl", **file}]))
    assert found.startswith(f"recipe: data.sources.0: Value error, {message}")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ({"find": "(a"}, "'(a' is no regular expression: missing ), unterminated subpattern at position 0"),
        ({"find": "a"}, "'a' has no group (in parentheses); give the source's name as source"),
    ],
)
def test_patterns_are_checked_with_the_recipe(pattern, message):
    sources = {"path": "a.jsonl", "by": "q", "patterns": [pattern]}
    assert refused(Recipe.build, changed("data.sources", sources)) == (
        f"recipe: data.sources.patterns.0: Value error, {message}"
    )


def test_a_recipe_is_frozen():
    recipe = Recipe.build(LISTED)
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1
