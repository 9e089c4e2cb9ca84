"""What a run says that it cost: the passes that were made, whichever process made them, and how others compare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import runs
from diagnoses import diagnosed, tree

from gradex_fast import costs, pipeline, sketching
from gradex_fast.accounts import account, searched
from gradex_fast.baselines import compare, show
from gradex_fast.flops import PassFlops
from gradex_fast.tally import Tally

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS, VALIDATION, ENDS = 4 * 8 + 4, 6, 6 + 5


def counts(found: dict) -> dict:
    """All but the time."""
    stages = {name: {k: v for k, v in cost.items() if k != "seconds"} for name, cost in found["stages"].items()}
    return {"stages": stages, "sketch": found["sketch"], "solver": found["solver"]}


@pytest.fixture(scope="module")
def made(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[runs.Tree, pipeline.Run]:
    output = tmp_path_factory.mktemp("accounts") / "run"
    plan = runs.lora_tree(inputs, output, estimate={"anchors": 2, "anchor_fraction": 0.5}, select={"keep": 2})
    return plan, runs.run(plan)


def test_the_report_s_passes_are_those_of_the_stages(made):
    stages = account(made[1])["stages"]
    expected = {  # two epochs, and the figures at the end
        "prepare": (0, 0),
        "train meta": (2 * ROWS + ENDS, 2 * ROWS),
        "sketch": (ROWS + VALIDATION, ROWS + VALIDATION),
        "train anchor 1": (2 * 20 + ENDS, 2 * 20),
        "train anchor 2": (2 * 20 + ENDS, 2 * 20),
        "select": (0, 0),
        "train final": (2 * 20 + ENDS, 2 * 20),
    }
    assert {name: (cost["forward_rows"], cost["backward_rows"]) for name, cost in stages.items()} == expected
    for name, cost in stages.items():
        assert (cost["flops"] > 0) == (name != "prepare") and cost["flops"] == cost["model_flops"] + cost["own_flops"]


def test_the_choice_is_all_but_the_trainings_after_it(made):
    found = account(made[1])
    for key in ("forward_rows", "backward_rows", "flops", "seconds"):
        whole = sum(cost[key] for cost in found["stages"].values())
        assert found["together"][key] == pytest.approx(whole)
        assert found["choice"][key] == pytest.approx(whole - found["stages"]["train final"][key])


def test_a_second_process_says_the_same(made):
    plan, run = made
    first = account(run)
    again = account(runs.run(plan))
    assert counts(again) == counts(first)
    assert again["stages"]["sketch"]["seconds"] == first["stages"]["sketch"]["seconds"] > 0
    written = json.loads((run.path / "metrics.json").read_text())["cost"]
    assert written["choice"]["flops"] == first["choice"]["flops"]


def test_reports_show_it(made):
    run, stages = made[1], account(made[1])["stages"]
    flops = costs.Cost(**{k: v for k, v in stages["sketch"].items() if k != "flops"}).flops
    text = f"{flops:.1e}".replace("e+0", "e")
    assert f"| sketch | 42 | 42 | {text} |" in (run.path / "report.md").read_text()
    page = (run.path / "report.html").read_text()
    assert f'<td class="right">{text}</td>' in page and "up to the choice" in page


def test_a_sketch_that_was_cut_off_keeps_its_time(inputs, tmp_path, monkeypatch):
    plan, real, calls = runs.lora_tree(inputs, tmp_path / "run"), sketching.sketch_examples, []

    def failing(*arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(sketching, "sketch_examples", failing)
    with pytest.raises(KeyboardInterrupt):
        runs.run(plan, until="sketch")
    place = tmp_path / "run" / "sketches" / "account" / "0.json"
    before = json.loads(place.read_text())
    assert before["rows"] == 16 and before["seconds"] > 0  # one shard
    run = runs.run(plan, until="sketch")
    after = json.loads(place.read_text())
    assert after["rows"] == ROWS + VALIDATION and after["seconds"] > before["seconds"]
    assert run.costs["sketch"].seconds == run.reporter.seconds["sketch"] == pytest.approx(after["seconds"])


@pytest.mark.parametrize(
    ("meta", "trained", "looks"),
    [({"sam": 0.05}, 2 * 2 * ROWS, 0), ({"patience": 9, "every": 2}, 2 * ROWS, 5), ("none", 0, 0)],
)
def test_meta_training_costs_what_it_does(inputs, tmp_path, meta, trained, looks):
    run = runs.run(runs.language_tree(inputs, tmp_path / "run", meta=meta), until="meta")
    found = run.costs["train meta"]  # ten steps
    assert (found.forward_rows, found.backward_rows) == (trained + looks * VALIDATION + ENDS, trained)


def test_a_training_that_stopped_early_costs_the_steps_that_it_took(inputs, tmp_path):
    train = {"steps": 12, "learning_rate": 0.3, "schedule": "constant"}
    plan = runs.language_tree(inputs, tmp_path / "run", meta={"patience": 1, "every": 2}, train=train)
    run = runs.run(plan, until="meta")
    looks = run.workspace.done("meta")["looks"]
    assert 1 < looks < 6
    epochs, rest = divmod(2 * looks, 5)
    assert run.costs["train meta"].backward_rows == epochs * ROWS + 8 * rest


def test_lifted_estimates_are_forward_passes(inputs, tmp_path):
    plan = runs.lora_tree(inputs, tmp_path / "run", estimate={"mode": "lift"}, select={"subsets": 5})
    run = runs.run(plan, until="select")
    lifted = run.estimator.tally.lifted
    assert lifted >= 5 and run.costs["select"].forward_rows == lifted * VALIDATION
    assert searched(run, run.estimator.tally.copy()) == costs.Cost()


def test_rivals_are_compared_with_the_whole_of_gradex(made):
    rows = compare(made[1], ["gradex", "dsir", "forward_real"], keep=1)
    found = {row["name"]: row for row in show.values(rows, {})}
    assert found["gradex"]["times_gradex"] == {"flops": 1, "seconds": 1} and found["dsir"]["times_gradex"]["flops"] == 0
    real, own = (found[name]["whole"] for name in ("forward_real", "gradex"))
    assert found["forward_real"]["times_gradex"]["flops"] == pytest.approx(real["flops"] / own["flops"])
    (alone,) = compare(made[1], ["dsir"], keep=1)
    assert alone.gradex.model_flops == own["model_flops"]  # though it was not asked for


def test_what_is_not_known_is_not_made_up(made, monkeypatch):
    monkeypatch.setattr(costs, "pass_flops", lambda *_: PassFlops(*np.full((4, 4), np.nan)))
    run = runs.run(made[0])
    found = account(run)
    assert found["stages"]["train meta"]["flops"] is None and found["stages"]["train meta"]["forward_rows"] > 0
    assert found["together"]["flops"] is None
    assert "| train meta | 83 | 72 | – |" in (run.path / "report.md").read_text()
    (row,) = show.values(compare(run, ["less"], keep=1), {})
    assert row["whole"]["flops"] is None and row["times_gradex"]["flops"] is None
    json.dumps(row, allow_nan=False)
    show.printed([row])


def test_a_solve_s_flops_are_its_looks_and_hessians():
    tally = Tally()
    tally.solved(np.array([10, 20]), np.array([1, 3]), whole=30, dim=3)
    assert tally.flops == 4 * 3 * (10 * 2 + 20 * 4) + 30 * 9 + 2 * 27 / 3
    assert tally.since(tally.copy()) == Tally()


def test_a_diagnosis_accounts_for_its_own_work_once_and_again(inputs, tmp_path):
    plan = tree("lora", inputs, tmp_path / "run", estimate={"anchors": 3})
    found, again = (diagnosed(plan, ["rrss", "truth", "dim", "ridge", "curvature"]).cost for _ in range(2))
    assert again == found
    rows = {row["work"]: row for row in found.rows}
    for key in ("forward_rows", "backward_rows", "flops", "seconds"):
        assert rows["together"][key] == pytest.approx(sum(r[key] for name, r in rows.items() if name != "together"))
    assert rows["expansion"]["backward_rows"] == 9 and rows["expansion"]["forward_rows"] == 9 + 9 * 9
    assert rows["sketches of d = 24, sequence margin"]["forward_rows"] == ROWS + VALIDATION
    assert rows["sketches of tokens"]["forward_rows"] > ROWS + VALIDATION
    assert (tmp_path / "run" / "diagnosis" / "cost.csv").read_text().count("\n") == 1 + len(rows)
