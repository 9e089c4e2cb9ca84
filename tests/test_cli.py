"""The command line: exit statuses, what goes to stdout, the demo."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import runs

from gradex_fast import cli, demo, finetuning, pipeline

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = demo.DemoSize(groups=4, rows=10, validation=10, steps=10, anchor_steps=2, anchors=3, subsets=20, dim=8)


@pytest.fixture
def recipe(inputs: Path, tmp_path: Path) -> str:
    return str(runs.write_recipe(tmp_path / "recipe.yaml", runs.language_tree(inputs, tmp_path / "run")))


@pytest.fixture
def tiny_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The arguments of a demo that takes two seconds and learns nothing; any AUC will do."""
    monkeypatch.setattr(demo, "FULL", TINY)
    monkeypatch.setattr(demo, "SHORT", dataclasses.replace(TINY, subsets=10))
    monkeypatch.setattr(cli, "REQUIRED_AUC", 0.0)
    return ["demo", "--out", str(tmp_path / "demo")]


def test_a_finished_run_is_status_0_and_prints_where_the_report_is(recipe, tmp_path, capsys):
    assert cli.main(["run", recipe]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    stages = re.findall(r"^(.+): done in \d+\.\d s$", err, re.MULTILINE)
    assert stages == ["prepare", "train meta", "sketch", "select", "train final"]
    assert "\x1b" not in out + err and "\r" not in out + err  # no terminal: plain lines


def test_json_alone_is_on_stdout(recipe, tmp_path, capsys):
    assert cli.main(["run", recipe, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert printed["final_loss"].keys() == {"selected", "all"}


@pytest.mark.parametrize("name", list(cli.STAGE_COMMANDS)[1:])
def test_a_stages_command_stops_after_it(recipe, tmp_path, capsys, name):
    assert cli.main([name, recipe, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["output"] == str(tmp_path / "run")
    made = {"prepare": "manifest.json", "meta": "meta", "sketch": "sketches", "select": "selection.json"}
    order = pipeline.STAGES.index
    for stage, path in {**made, "finetune": "final", "report": "report.html"}.items():
        assert (tmp_path / "run" / path).exists() == (order(stage) <= order(name)), path


def test_select_says_what_it_chose(recipe, tmp_path, capsys):
    assert cli.main(["select", recipe, "select.keep=2", "select.method=forward"]) == 0
    chosen = json.loads((tmp_path / "run" / "selection.json").read_text())["chosen"]
    assert capsys.readouterr().out == f"chosen: {', '.join(chosen)}\n"


@pytest.mark.parametrize("arguments", [["--json", "seed=3", "sketch.dim=4"], ["seed=3", "--json", "sketch.dim=4"]])
def test_overrides_stand_anywhere(recipe, tmp_path, arguments):
    assert cli.main(["prepare", recipe, *arguments]) == 0
    written = runs.Recipe.load(tmp_path / "run" / "config.yaml")
    assert (written.seed, written.sketch.dim) == (3, 4)


@pytest.mark.parametrize("arguments", [["demo", "seed=3"], ["run", "r.yaml", "--fast"], ["run"], [], ["dance"]])
def test_arguments_that_are_not_understood(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_overwrite_and_quiet(recipe, tmp_path, capsys):
    assert cli.main(["meta", recipe]) == 0
    assert cli.main(["meta", recipe, "seed=1", "--quiet"]) == 2
    capsys.readouterr()
    assert cli.main(["meta", recipe, "seed=1", "--quiet", "--overwrite"]) == 0
    assert capsys.readouterr() == ("", "")


def test_control_c_is_status_130_and_the_same_command_goes_on(recipe, tmp_path, capsys, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "train", lambda *_, **__: signal.raise_signal(signal.SIGINT))
        assert cli.main(["run", recipe, "--quiet"]) == 130
    signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "gradex-fast: interrupted; the same command goes on from here\n"
    assert cli.main(["run", recipe, "--quiet"]) == 0


def test_python_m_gradex_fast():
    command = [sys.executable, "-X", "importtime", "-m", "gradex_fast", "run", "no such recipe.yaml"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    lines = [line for line in found.stderr.splitlines() if not line.startswith("import time:")]
    assert len(lines) == 1 and lines[0].startswith("gradex-fast: cannot read recipe no such recipe.yaml: ")
    assert "torch" not in found.stderr  # a mistake in the recipe costs no long import


def test_the_demo_prints_plain_lines(tiny_demo, tmp_path, capsys):
    assert cli.main(tiny_demo) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\r" not in out + err
    rows = list(csv.DictReader((tmp_path / "demo" / "scores.csv").open()))
    pairs = [
        (float(a["score"]), float(b["score"])) for a in rows for b in rows if a["truth"] + b["truth"] == "noisyclean"
    ]
    assert len(pairs) == 4
    assert f"clean ones by score: {sum(noisy > clean for noisy, clean in pairs) / 4:.3f}\n" in out
    assert re.search(r"estimate against truth: Spearman -?[01]\.\d\d, Pearson .* a constant .*\)\n", out)
    assert re.search(r"ensemble selection keeps \d of 4 sources: .*\nforward selection keeps", out)
    for name in ("selected", "all", "random", "clean"):
        assert re.search(rf"^  {name} +\d+\.\d{{4}} +\d+\.\d%$", out, re.MULTILINE)
    assert "train compare/random: done in" in err


def test_the_demo_fails_where_the_scores_do_not_tell_noisy_from_clean(tiny_demo, capsys, monkeypatch):
    monkeypatch.setattr(cli, "REQUIRED_AUC", 1.01)
    assert cli.main([*tiny_demo, "--short", "--json", "--seed", "3"]) == 1
    out, err = capsys.readouterr()
    figures = ("auc", "spearman", "pearson", "relative_error", "constant_error", "seconds", "estimate_milliseconds")
    assert {*figures, "final_loss"} <= json.loads(out).keys()
    assert re.search(r"gradex-fast: AUC [01]\.\d\d is under 1.01: this installation is not right\n$", err)


def test_the_demo_again_and_with_overwrite(tiny_demo, tmp_path, capsys):
    assert cli.main(tiny_demo) == 0
    first = runs.digests(tmp_path / "demo", "final/*")
    assert cli.main(tiny_demo) == 0
    assert cli.main([*tiny_demo, "--seed", "1", "--quiet"]) == 2
    assert cli.main([*tiny_demo, "--overwrite"]) == 0
    assert runs.digests(tmp_path / "demo", "final/*") == first


def test_the_demo_writes_nothing_where_something_else_lies(tiny_demo, tmp_path, capsys):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.tex").write_text("years of work")
    assert cli.main([*tiny_demo, "--overwrite"]) == 2
    assert cli.main(["demo", "--seed", "-1", "--out", str(tmp_path / "other")]) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["demo", "thesis.tex"]
