"""Many processes on one run: the sketches of all together are those of one, to the bit, whoever dies."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import runs
from processes import KILLED, command, ended, started

from gradex_fast import cli, pipeline
from gradex_fast.errors import GradexError
from gradex_fast.ranks import Ranks
from gradex_fast.recipe import Recipe

SECTIONS = {"sketch": {"dim": 16, "shard_rows": 3}}
SHARDS = 14  # of 36 training and 6 validation rows
PATTERN = "sketches/*.safetensors"


@pytest.fixture(scope="module")
def trained(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has its meta-model; copied, never written."""
    output = tmp_path_factory.mktemp("trained") / "run"
    runs.run(runs.lora_tree(inputs, output, **SECTIONS), until="meta")
    return output


@pytest.fixture(scope="module")
def alone(inputs: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The sketches as one process makes them."""
    output = shutil.copytree(trained, tmp_path_factory.mktemp("alone") / "run")
    runs.run(runs.lora_tree(inputs, output, **SECTIONS), until="sketch")
    found = runs.digests(output, PATTERN)
    assert len(found) == SHARDS
    return found


@pytest.fixture
def recipe(inputs: Path, trained: Path, tmp_path: Path) -> str:
    output = shutil.copytree(trained, tmp_path / "run")
    return str(runs.write_recipe(tmp_path / "recipe.yaml", runs.lora_tree(inputs, output, **SECTIONS)))


def rank(index: int, recipe: str, kill_at: tuple[str, str] | None = None):
    """One of the two processes that torchrun would start."""
    environment = {"RANK": str(index), "LOCAL_RANK": str(index), "WORLD_SIZE": "2"}
    return started("sketch", recipe, "--quiet", kill_at=kill_at, environment=environment)


def owners(run: Path) -> dict[str, int]:
    return {path.stem: json.loads(path.read_text())["rows"] for path in (run / "sketches" / "account").iterdir()}


def test_two_processes_share_the_work(tmp_path, recipe, alone):
    both = [rank(index, recipe) for index in range(2)]
    assert [ended(process) for process in both] == [0, 0]
    assert runs.digests(tmp_path / "run", PATTERN) == alone
    assert sum(owners(tmp_path / "run").values()) == 42  # no row twice


def test_one_of_two_dies_and_the_other_ends_its_work(tmp_path, recipe, alone):
    dying = rank(1, recipe, kill_at=("os.rename", r"sketches/\.train-000009"))
    assert ended(dying) == KILLED
    before = runs.digests(tmp_path / "run", PATTERN)
    assert 0 < len(before) < SHARDS
    assert ended(rank(0, recipe)) == 0
    assert runs.digests(tmp_path / "run", PATTERN) == alone


def test_both_die_and_a_rerun_makes_only_what_was_not_finished(tmp_path, recipe, alone):
    moments = r"sketches/\.train-000004", r"sketches/\.train-000009"
    both = [rank(index, recipe, kill_at=("os.rename", moment)) for index, moment in enumerate(moments)]
    assert [ended(process) for process in both] == [KILLED, KILLED]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob(PATTERN)}
    assert 0 < len(kept) < SHARDS
    assert command("sketch", recipe, "--quiet") == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert runs.digests(tmp_path / "run", PATTERN) == alone


def test_the_tasks_of_an_array_take_their_shards(tmp_path, recipe, alone, capsys):
    counts = []
    for index in range(3):
        assert command("sketch", recipe, "--quiet", "--shard", f"{index}/3") == 0
        counts.append(len(list((tmp_path / "run").glob(PATTERN))))
    assert counts == [5, 10, 14]
    assert runs.digests(tmp_path / "run", PATTERN) == alone
    assert command("select", recipe, "--quiet") == 0


def test_an_array_needs_a_meta_model(inputs, tmp_path):
    recipe = Recipe.build(runs.lora_tree(inputs, tmp_path / "run"))
    with pytest.raises(GradexError, match="no meta-model yet; run `gradex-fast meta`"):
        pipeline.run(recipe, until="sketch", ranks=Ranks(1, 4, shard=True))


@pytest.mark.parametrize("text", ["3", "3/3", "-1/3", "a/b", "1/0", "1/2/3"])
def test_a_share_that_is_none(text):
    with pytest.raises(GradexError, match=f"--shard {text}"):
        Ranks.of(text)


@pytest.mark.parametrize("name", ["compare", "diagnose", "demo"])
def test_some_commands_are_for_one_process(monkeypatch, capsys, recipe, name):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main([name] if name == "demo" else [name, recipe]) == 2
    assert f"{name} is for one process, and this is one of 2" in capsys.readouterr().err


def test_several_processes_throw_nothing_away(inputs, tmp_path):
    recipe = Recipe.build(runs.lora_tree(inputs, tmp_path / "run"))
    with pytest.raises(GradexError, match="--overwrite is for one process"):
        pipeline.run(recipe, overwrite=True, ranks=Ranks(0, 2))
