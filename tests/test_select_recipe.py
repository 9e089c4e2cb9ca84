"""The recipe's `select` section, from YAML to what the searches are called with and what selection.json says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import runs

from gradex_fast import Constraints, backward_selection, floating_selection, forward_selection, random_ensemble
from gradex_fast.errors import GradexError
from gradex_fast.plan import plan
from gradex_fast.recipe import Recipe
from gradex_fast.select import FEW, MOST
from gradex_fast.workspace import Workspace


@pytest.fixture(scope="module")
def sketched(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("select") / "run"
    runs.run(runs.language_tree(inputs, output), until="sketch")
    return output


def select(inputs: Path, output: Path, until: str = "select", **section):
    """Select anew from the same sketches: the run, and its selection.json."""
    run = runs.run(runs.language_tree(inputs, output, select=section), until=until)
    return run, json.loads((output / "selection.json").read_text())


def names_of(run, indices) -> list[str]:
    return [run.corpus.names[index] for index in indices]


GREEDY = {"forward": forward_selection, "backward": backward_selection, "floating": floating_selection}


@pytest.mark.parametrize("method", GREEDY)
@pytest.mark.parametrize("unit", ["rows", "tokens"])
def test_every_greedy_option_reaches_its_search(inputs, sketched, method, unit):
    section = {"include": ["noise"], "exclude": ["more"], "whole": True, "method": method}
    tokens = [
        source.tokens for source in runs.run(runs.language_tree(inputs, sketched), until="prepare").corpus.sources
    ]
    costs = [8] * 4 if unit == "rows" else tokens
    budget = costs[2] + max(costs[0], costs[3])
    run, written = select(inputs, sketched, **section, **{f"max_{unit}": budget})
    limits = Constraints(include=[2], exclude=[1], costs=costs, budget=budget)
    found = GREEDY[method](run.estimator, whole=True, constraints=limits)
    assert run.selection.chosen == found.chosen
    assert 2 in found.chosen and 1 not in found.chosen
    assert written["chosen"] == names_of(run, found.chosen)
    path = [(names_of(run, [step["source"]])[0], step["added"]) for step in found.path]
    assert path and path == [(step["source"], step["added"]) for step in written["path"]]
    assert written["steps"] == found.details["steps"]
    spent = sum(costs[i] for i in found.chosen)
    assert written["cost"] == {"unit": unit, "spent": spent, "budget": budget} and spent <= budget


@pytest.mark.parametrize(
    ("section", "options"),
    [
        ({"fraction": [0.5, 0.75], "threshold": "cross-validation"}, {"fraction": (0.5, 0.75)}),
        ({"fraction": 0.5, "sampling": "antithetic", "ratios": "most"}, {"fraction": 0.5, "ratios": MOST}),
        ({"sampling": "balanced", "ratios": "few"}, {"ratios": FEW}),
        ({"sampling": "balanced", "ratios": [0.25, 0.5], "keep": 3}, {"ratios": [0.25, 0.5]}),
        ({"threshold": 0.1}, {}),
    ],
)
def test_every_option_of_the_ensemble_reaches_it(inputs, sketched, section, options):
    run, written = select(inputs, sketched, **section)
    options = {key: section[key] for key in ("sampling", "threshold", "keep") if key in section} | options
    found = random_ensemble(run.estimator, subsets=20, **options)
    assert run.selection.chosen == found.chosen
    np.testing.assert_array_equal(run.selection.subsets, found.subsets)
    rows = [{**row, "sources": names_of(run, row["sources"])} for row in found.details["sweep"]]
    expected = {**found.details, "sweep": rows}
    assert {key: written[key] for key in expected} == json.loads(json.dumps(expected))
    assert [row["subsets"] for row in written["convergence"]] == [2, 5, 10]
    assert len(rows) == len(options.get("ratios", ()))


def test_the_seed_orders_equals(inputs, sketched):
    run, _ = select(inputs, sketched, method="forward", whole=True)
    path = [step["source"] for step in forward_selection(run.estimator, whole=True, seed=0).path]
    assert [step["source"] for step in run.selection.path] == path


def test_choices_listed_beside_it_are_written_too(inputs, sketched):
    run, written = select(inputs, sketched, also=["floating", "backward"], keep=2, include=["reverse"])
    assert set(written["others"]) == {"floating", "backward"}
    for method, other in written["others"].items():
        found = run.others[method]
        assert other == {"chosen": names_of(run, found.chosen), "steps": found.details["steps"]}
        assert "reverse" in other["chosen"] and len(other["chosen"]) == 2


def test_the_report_tells_what_was_found(inputs, tmp_path):
    section = {"fraction": [0.5, 0.75], "ratios": [0.5], "max_rows": 24, "also": ["floating"]}
    run, written = select(inputs, tmp_path / "run", until="report", **section)
    text = (run.path / "report.md").read_text()
    assert "Scores against the number of subsets" in text
    assert "The chosen sources have 16 rows; at most 24 are allowed." in text
    assert f"| 0.50 | {', '.join(written['sweep'][0]['sources'])} |" in text
    page = (run.path / "report.html").read_text()
    assert page.count("of held-out subsets' variance explained") == 1 and "share kept" in page
    tree = runs.language_tree(inputs, tmp_path / "other", select={"method": "forward", "whole": True})
    whole = runs.run(tree)
    cut = whole.selection.details["steps"]
    says = f"The choice is the set after {cut} steps." in (whole.path / "report.md").read_text()
    assert says == (cut < 4)


REFUSED = [
    ({"include": ["nois"]}, "select: include: no source is named 'nois'; did you mean 'noise'?"),
    ({"exclude": ["copies"]}, "select: exclude: no source is named 'copies'; did you mean 'copy'?"),
    ({"include": ["copy"], "exclude": ["copy"]}, "select: copy stands in include and in exclude"),
    ({"exclude": list(runs.SOURCES)}, "select: exclude leaves no source to choose from"),
    ({"include": ["copy", "more"], "keep": 1}, "select: keep is 1, fewer than the 2 sources of include"),
    ({"exclude": ["copy"], "keep": 4}, "select: keep is 4, more than the 3 source(s) that exclude leaves"),
    (
        {"include": ["copy", "more"], "max_rows": 15},
        "select: budget of 15 rows is less than what must be included: copy 8, more 8",
    ),
    ({"max_rows": 7}, "select: budget of 7 rows holds no 1 source(s): the smallest take 8"),
    ({"max_rows": 17, "keep": 3}, "select: budget of 17 rows holds no 3 source(s): the smallest take 24"),
]


@pytest.mark.parametrize(("section", "message"), REFUSED)
def test_what_cannot_be_chosen_is_refused_before_anything_is_trained(inputs, tmp_path, section, message):
    tree = runs.language_tree(inputs, tmp_path / "run", select=section)
    for start in (runs.run, lambda tree: plan(Recipe.build(tree))):
        with pytest.raises(GradexError) as error:
            start(tree)
        assert str(error.value) == message
    assert not (tmp_path / "run").exists()


BAD = [
    ({"max_rows": 1, "max_tokens": 1}, "select: Value error, give max_rows or max_tokens, not both"),
    ({"sampling": "antithetic"}, "select: Value error, sampling: antithetic needs fraction: 0.5"),
    (
        {"threshold": "cross-validation", "subsets": 3},
        "select: Value error, cross-validation needs subsets of 4 or more",
    ),
    ({"fraction": [0.5, 0.7], "subsets": 3}, "select: Value error, cross-validation needs subsets of 4 or more"),
    ({"fraction": 1}, "select.fraction: Value error, 1 is neither a number between 0 and 1 nor a list of such"),
    ({"fraction": []}, "select.fraction: Value error, [] is neither a number between 0 and 1 nor a list of such"),
    (
        {"fraction": ["a"]},
        "select.fraction: Value error, ['a'] is neither a number between 0 and 1 nor a list of such",
    ),
    (
        {"threshold": "brake"},
        "select.threshold: Value error, 'brake' is neither 'break' nor 'cross-validation' nor a number of nats",
    ),
    (
        {"ratios": [0.5, 1.5]},
        "select.ratios: Value error, [0.5, 1.5] is neither 'few' nor 'most' nor a list of numbers above 0, at most 1",
    ),
    ({"include": "copy"}, "select.include: Input should be a valid tuple"),
    ({"inclde": ["copy"]}, "unknown key 'select.inclde'; did you mean 'include'?"),
]


@pytest.mark.parametrize(("section", "message"), BAD)
def test_bad_values(inputs, tmp_path, section, message):
    with pytest.raises(GradexError) as error:
        Recipe.build(runs.language_tree(inputs, tmp_path, select=section))
    assert str(error.value) == f"recipe: {message}"


def test_every_field_survives_yaml(inputs, tmp_path):
    section = {"method": "floating", "include": ["copy"], "exclude": ["more"], "max_tokens": 900, "whole": True}
    ensemble = {"fraction": [0.5, 0.25], "sampling": "balanced", "threshold": 0.25, "ratios": "few"}
    first = Recipe.build(runs.language_tree(inputs, tmp_path, select={**section, **ensemble}))
    (tmp_path / "recipe.yaml").write_text(first.dump())
    assert Recipe.load(tmp_path / "recipe.yaml") == first
    assert first.select.fraction == (0.5, 0.25) and first.select.threshold == 0.25


def test_a_run_from_before_these_options_goes_on(inputs, sketched):
    """No option of the selection is part of what a run's directory is locked to."""
    recipe = Recipe.build(runs.language_tree(inputs, sketched))
    identity = json.loads((Workspace(recipe).path / "manifest.json").read_text())["identity"]
    assert identity and not [field for field in identity if field.startswith("select")]
    old = {"method": "ensemble", "also": [], "subsets": 20, "fraction": 0.75, "keep": None}
    run, _ = select(inputs, sketched, **old)
    draw = np.random.default_rng(0)
    drawn = [set(draw.choice(4, 3, replace=False).tolist()) for _ in range(20)]
    assert [set(np.flatnonzero(mask[:4]).tolist()) for mask in run.selection.subsets] == drawn
