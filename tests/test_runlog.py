"""run.log: what a run says, its own warnings and libraries', with times, one call after the other."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import runs
from rich.console import Console
from transformers.utils import logging as transformers_logging

from gradex_fast.errors import GradexError
from gradex_fast.progress import Reporter

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) \S")


@pytest.mark.parametrize("propagates", [False, True])
def test_everything_is_there_in_order_and_a_second_call_appends(propagates, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", propagates)
    path, reporter = tmp_path / "run.log", Reporter(Console(file=io.StringIO()), quiet=True)
    with reporter:
        reporter.say("before there was a file")
        reporter.log_to(path)
        reporter.warn("of our own")
        logging.getLogger("gradex_fast.fitting").warning("memory ran out")
        logging.getLogger("another.package").warning("deprecated %s", "thing")
        transformers_logging.get_logger("transformers.trainer").error("of transformers")
        warnings.warn("of Python", stacklevel=1)
    logging.getLogger("another.package").warning("after the run")
    with pytest.raises(KeyError), reporter:
        reporter.say("again")
        raise KeyError("what stopped it")
    lines = path.read_text().splitlines()
    heads = [line for line in lines if LINE.match(line)]
    found = [line.split(" ", 2)[2] for line in heads]
    assert found[:5] == [
        "INFO before there was a file",
        "WARNING of our own",
        "WARNING memory ran out",
        "WARNING deprecated thing",
        "ERROR of transformers",
    ]
    assert "UserWarning: of Python" in found[5]
    assert found[6:] == ["INFO again", "ERROR stopped: KeyError: 'what stopped it'"]


def test_a_runs_log_has_its_stages_and_grows(inputs, tmp_path):
    tree = runs.language_tree(inputs, tmp_path / "run")
    runs.run(tree, until="meta")
    log = tmp_path / "run" / "run.log"
    first = log.read_text()
    assert "INFO prepare: done in" in first and "INFO train meta: done in" in first
    with pytest.raises(GradexError):
        runs.run(runs.merged(tree, sketch={"dim": 8}), until="meta")
    assert log.read_text() == first  # that was no call of this run
    runs.run(tree, until="sketch")
    assert log.read_text().startswith(first) and "INFO sketch: done in" in log.read_text()
    runs.run(tree, until="prepare", overwrite=True)
    assert "sketch" not in log.read_text()


SCRIPT = """
import logging, sys
from gradex_fast.progress import Reporter
with Reporter(quiet=True):
    logging.getLogger("gradex_fast.fitting").warning("memory ran out: smaller now\\nand a second line")
logging.getLogger("gradex_fast.fitting").warning("as ever")
"""


def test_libraries_warnings_are_still_seen_where_nobody_else_shows_them():
    """Python prints them to stderr only as long as nothing listens."""
    root = Path(__file__).parents[1]
    environment = {"PYTHONPATH": str(root), "PATH": "", "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == ["warning: memory ran out: smaller now", "as ever"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    with Reporter(quiet=True) as reporter:
        (tmp_path / "file").write_text("")
        reporter.log_to(tmp_path / "file" / "run.log")
        reporter.say("on")
    assert (tmp_path / "file").read_text() == ""
