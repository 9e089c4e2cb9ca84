"""All rivals behind one interface, on one run: what each returns, refuses and costs."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import runs

from gradex_fast.accounts import shared_costs
from gradex_fast.baselines import QUICK, RIVALS, Cost, compare
from gradex_fast.baselines.rival import Scored, by_source, chosen_by
from gradex_fast.errors import GradexError

pytestmark = pytest.mark.usefixtures("one_thread")
SCORED = [name for name in QUICK if name not in ("pretrained", "all")]
OPTIONS = {"ensemble_real": {"subsets": 3}, "forward_real": {"keep": 1}}


@pytest.fixture(scope="module", params=[True, False], ids=["target rows", "no target rows"])
def run(request, inputs: Path, tmp_path_factory):
    """Four sources, one of them of one row; anchors."""
    tree = runs.language_tree(inputs, tmp_path_factory.mktemp("rivals") / "run", train={"epochs": 1})
    tree["data"]["sources"][1]["limit"] = 1
    tree["estimate"] = {"anchors": 1}
    if not request.param:
        del tree["data"]["target"]["train"]
    return runs.run(tree, until="select")


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_chooses_from_scores(run, name):
    found = RIVALS[name](run, **OPTIONS.get(name, {}))
    selection, count = found.selection, len(run.corpus.sources)
    scores = selection.scores[:count]
    assert np.isfinite(scores).all() and list(selection.chosen) == sorted(set(selection.chosen))
    assert all(0 <= i < count for i in selection.chosen) and bool(selection.chosen) == (name != "pretrained")
    assert selection.subsets.shape[0] == len(selection.estimates)
    assert all(value >= 0 for value in astuple(found.cost))
    assert set(found.needs) <= {"meta", "sketch", "estimate"}


@pytest.mark.parametrize("keep", [1, 3, 4])
@pytest.mark.parametrize("name", SCORED)
def test_keep_is_how_many_of_the_lowest_are_chosen(run, name, keep):
    selection = RIVALS[name](run, keep=keep).selection
    scores = selection.scores[:4]
    others = np.setdiff1d(np.arange(4), selection.chosen)
    assert len(selection.chosen) == keep
    assert keep == 4 or scores[list(selection.chosen)].max() <= scores[others].min()


@pytest.mark.parametrize("name", SCORED)
def test_the_same_run_gives_the_same_choice(run, name):
    first, second = (RIVALS[name](run) for _ in range(2))
    np.testing.assert_array_equal(first.selection.scores, second.selection.scores)
    assert first.selection.chosen == second.selection.chosen


def test_those_that_look_at_nothing(run):
    assert RIVALS["pretrained"](run, keep=2).selection.chosen == ()
    assert RIVALS["all"](run, keep=2).selection.chosen == (0, 1, 2, 3)
    drawn = {RIVALS["random"](run, keep=2, seed=seed).selection.chosen for seed in range(40)}
    assert len(drawn) == 6  # all pairs
    assert len(RIVALS["random"](run).selection.chosen) == 2


def test_equal_scores_are_told_apart_by_the_seed():
    equal = Scored(np.array([1.0, 1.0, np.nan, 0.0, 1.0]), natural=2)
    chosen = {chosen_by(equal, None, seed).chosen for seed in range(30)}
    assert chosen == {(0, 3), (1, 3), (3, 4)}
    assert chosen_by(equal, None, 5).chosen == chosen_by(equal, None, 5).chosen
    assert chosen_by(equal, 4, 0).chosen == (0, 1, 3, 4)  # what has no score comes last


def test_a_sources_score_is_minus_the_mean_of_its_rows(run):
    values = np.arange(25.0)
    values[[0, 8]] = np.nan  # the second source's only row
    found = by_source(run, values, natural=12.0)
    part = np.arange(1.0, 8)
    assert found.score[0] == -part.mean() and np.isnan(found.score[1]) and found.natural == 2
    error = 1.96 * part.std(ddof=1) / np.sqrt(7)
    assert (found.low[0], found.high[0]) == pytest.approx((-4 - error, -4 + error))
    assert by_source(run, values, natural=1e9).natural == 1


def test_the_table_has_each_rivals_own_cost_and_the_whole(run):
    rows = {row.name: row for row in compare(run, keep=2)}
    assert tuple(rows) == QUICK
    shared = shared_costs(run)
    assert rows["dsir"].whole == rows["dsir"].cost
    assert rows["less"].whole == rows["less"].cost + shared["meta"]
    assert rows["trak"].whole.forward_rows == shared["meta"].forward_rows + shared["sketch"].forward_rows
    assert rows["gradex"].whole.seconds > sum(cost.seconds for cost in shared.values())
    for row in rows.values():
        assert row.chosen == tuple(run.corpus.names[i] for i in row.outcome.selection.chosen)
        assert row.scores.shape == (4,)
        assert json.loads(json.dumps(row.values(), allow_nan=False))["chosen"] == list(row.chosen)


def test_shared_costs_are_the_passes_of_the_stages(run):
    corpus, recipe, shared = run.corpus, run.recipe, shared_costs(run)
    passes = run.passes
    ends = passes.forward([*corpus.validation.examples, *corpus.test.examples])
    subset = run.examples(np.flatnonzero(run.truths[0][:4]))
    expected = {
        "meta": passes.training(run.examples(), recipe.train) + ends,
        "sketch": passes.sketch([*run.examples(), *corpus.validation.examples]),
        "estimate": passes.training(subset, recipe.train) + ends,
    }
    for stage, cost in expected.items():
        assert shared[stage].taking(0) == cost
        assert shared[stage].seconds > 0


def test_costs_add_up():
    assert Cost(1, 2, 3, 4, 0.5) + Cost(10, 20, 30, 40, 1.0) == Cost(11, 22, 33, 44, 1.5)


@pytest.mark.parametrize(
    ("names", "keep", "options", "message"),
    [
        (["dsri"], None, None, "unknown rival 'dsri'; did you mean 'dsir'?"),
        (["zzz"], None, None, "unknown rival 'zzz'; there are gradex, pretrained, all,"),
        (["dsir"], 5, None, "keep = 5, but there are 4 sources: choose 1 to 4, or None"),
        (["gradex"], 0, None, "keep = 0, but there are 4 sources"),
        (["dsir"], 1, {"deft": {}}, "options for 'deft', which is not among the rivals: dsir"),
    ],
)
def test_mistakes_are_named(run, names, keep, options, message):
    with pytest.raises(GradexError) as error:
        compare(run, names, keep, options)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "stage"), [("less", "meta"), ("less_sgd", "meta"), ("trak", "meta"), ("gradex", "meta")]
)
def test_a_run_that_has_not_come_far_enough_is_refused(inputs, tmp_path, name, stage):
    fresh = runs.run(runs.language_tree(inputs, tmp_path / "run"), until="prepare")
    with pytest.raises(GradexError, match=f"the run has no '{stage}' stage yet: carry it so far first"):
        RIVALS[name](fresh)
