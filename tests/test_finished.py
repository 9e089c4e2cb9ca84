"""`report RUN` and `compare RUN RUN`: from the directories alone, as finished runs leave them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import runs

from gradex_fast import cli
from gradex_fast.between import between
from gradex_fast.metrics import spearman

REPORT = ("metrics.json", "scores.csv", "report.md", "report.html")


@pytest.fixture(scope="module")
def originals(inputs: Path, tmp_path_factory) -> tuple[Path, Path]:
    """A finished run, and one with another seed and choice that stopped when it had chosen."""
    folder = tmp_path_factory.mktemp("runs")
    runs.run(runs.language_tree(inputs, folder / "one", select={"keep": 2}))
    other = runs.language_tree(inputs, folder / "two", select={"keep": 3, "method": "forward"}, seed=1)
    runs.run(other, until="select")
    return folder / "one", folder / "two"


@pytest.fixture
def moved(originals, tmp_path) -> tuple[Path, Path]:
    """Both runs somewhere else, where neither their model nor their data are."""
    copies = tuple(shutil.copytree(run, tmp_path / run.name) for run in originals)
    for run in copies:
        for folder in ("meta", "final", "sketches"):
            shutil.rmtree(run / folder, ignore_errors=True)
        config = run / "config.yaml"
        config.write_text(config.read_text().replace(str(originals[0].parent), "/nowhere"))
    return copies


def test_a_report_is_written_again_from_its_directory_alone(originals, moved, capsys):
    for name in REPORT:
        (moved[0] / name).unlink()
    assert cli.main(["report", str(moved[0])]) == 0
    assert capsys.readouterr().out == f"report: {moved[0] / 'report.html'}\n"
    for name in REPORT:
        assert (moved[0] / name).read_bytes() == (originals[0] / name).read_bytes(), name


def test_a_run_that_only_chose_has_a_report(moved, capsys):
    assert cli.main(["report", str(moved[1]), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["chosen"] == json.loads((moved[1] / "selection.json").read_text())["chosen"]
    page = Path(made["report"]).read_text(encoding="utf-8")
    assert "3 of 4 sources chosen" in page and "No model was fine-tuned on the selection" in page


def test_a_recipe_names_its_run(inputs, moved, tmp_path, capsys):
    path = runs.write_recipe(tmp_path / "recipe.yaml", runs.language_tree(inputs, moved[0]))
    assert cli.main(["report", str(path)]) == 0
    assert capsys.readouterr().out == f"report: {moved[0] / 'report.html'}\n"


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("manifest.json", "is no run: there is no manifest.json"),
        ("selection.json", "has chosen nothing yet; finished stages are kept: gradex-fast run"),
        ("report.json", "has no report.json, an older gradex_fast made it; finished stages are kept: gradex-fast run"),
    ],
)
def test_what_is_missing_is_said(moved, capsys, gone, message):
    (moved[0] / gone).unlink()
    before = runs.digests(moved[0])
    assert cli.main(["report", str(moved[0])]) == 2
    assert message in capsys.readouterr().err and runs.digests(moved[0]) == before


def test_a_report_of_another_selection_is_not_written(moved, capsys):
    shutil.copy(moved[1] / "selection.json", moved[0] / "selection.json")
    assert cli.main(["report", str(moved[0])]) == 2
    assert "is of another selection than selection.json" in capsys.readouterr().err
    kept = moved[1] / "report.json"
    kept.write_text(kept.read_text().replace('"format": 1', '"format": 99'))
    assert cli.main(["report", str(moved[1])]) == 2
    assert "has format 99, not 1" in capsys.readouterr().err


def test_two_runs_beside_one_another(originals, moved):
    found = between(moved)
    chosen = [json.loads((run / "selection.json").read_text())["chosen"] for run in moved]
    assert [(run["label"], run["method"], run["chosen"]) for run in found["runs"]] == [
        ("one", "ensemble", chosen[0]),
        ("two", "forward", chosen[1]),
    ]
    both = [name for name in chosen[0] if name in chosen[1]]
    assert found["sources"]["all"] == both
    alone = {name: ["one"] for name in chosen[0] if name not in both}
    assert found["sources"]["some"] == alone | {name: ["two"] for name in chosen[1] if name not in both}
    scores = [json.loads((run / "report.json").read_text())["summary"]["sources"] for run in originals]
    (pair,) = found["pairs"]
    assert pair["both"] == len(both) and pair["only"] == [2 - len(both), 3 - len(both)]
    assert pair["jaccard"] == pytest.approx(len(both) / (5 - len(both))) and pair["common"] == 4
    assert pair["spearman"] == pytest.approx(spearman(*([one["score"] for one in run] for run in scores)))
    assert found["settings"] == {"seed": [0, 1], "select.method": ["ensemble", "forward"], "select.keep": [2, 3]}
    assert found["versions"] == {}


def test_final_figures_and_cost_are_those_of_the_runs(moved):
    one, two = between(moved)["runs"]
    notes = json.loads((moved[0] / "manifest.json").read_text())["done"]
    assert one["final"]["selected"]["validation_loss"] == notes["final"]["validation_loss"]
    assert "selected" not in two["final"] and two["final"]["meta"]["seconds"] > 0
    assert one["cost"] == json.loads((moved[0] / "metrics.json").read_text())["cost"]
    assert one["cost"]["together"]["forward_rows"] > two["cost"]["together"]["forward_rows"] > 0


def test_older_runs_are_compared_by_their_scores_csv(moved):
    new = between(moved)["pairs"]
    assert cli.main(["report", str(moved[1]), "--quiet"]) == 0
    for run in moved:
        (run / "report.json").unlink()
    assert between(moved)["pairs"] == new and new[0]["spearman"] is not None
    (moved[1] / "scores.csv").unlink()
    assert between(moved)["pairs"][0]["spearman"] is None


def test_the_command_tells_runs_from_recipes(moved, tmp_path, capsys):
    one, two = map(str, moved)
    assert cli.main(["compare", one, two]) == 0
    out = capsys.readouterr().out
    assert "one and two: " in out and "Spearman of the scores" in out and "select.method" in out and "\x1b" not in out
    assert cli.main(["compare", one, two, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(between(moved)))
    for arguments, message in (
        ([one], "compare takes two or more runs, or a recipe"),
        ([one, one], "the same run was named twice"),
        ([one, str(tmp_path)], "is no run: there is no manifest.json"),
        ([one, two, "--keep", "2"], "go with a recipe, not with runs"),
    ):
        assert cli.main(["compare", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_runs_in_folders_of_one_name_have_names_of_their_own(moved, tmp_path):
    shutil.copytree(moved[0], tmp_path / "later" / "one")
    found = between([moved[0], tmp_path / "later" / "one"])
    assert [run["label"] for run in found["runs"]] == [f"{tmp_path.name}/one", "later/one"]
    assert found["settings"] == {} and found["pairs"][0]["spearman"] == pytest.approx(1)


@pytest.mark.parametrize("name", ["report", "compare", "preview", "recipes", "run", "demo", "plan", "doctor", "export"])
def test_every_command_prints_json_and_is_quiet_when_asked(capsys, name):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    out = capsys.readouterr().out
    assert "--json" in out and "--quiet" in out
