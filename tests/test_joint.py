"""Two processes that train one model (gloo): the steps of one with twice the batch, and the same after a death."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import runs
from processes import KILLED, ended, started
from safetensors.numpy import load_file

TRAIN = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 4, "checkpoints": 2, "schedule": "constant"}
SECTIONS = {"train": TRAIN, "meta": {"patience": 9, "every": 4}}


def both(
    inputs: Path,
    folder: Path,
    command: str = "run",
    kill_at: tuple[str, str] | None = None,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
    tree: Callable = runs.lora_tree,
    **sections,
) -> list[int]:
    """Exit statuses of the two processes; `kill_at` is for the first."""
    tree = tree(inputs, folder / "run", **{**SECTIONS, **sections})
    recipe = str(runs.write_recipe(folder / "recipe.yaml", tree))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_WORLD_SIZE": "2"}
    places |= environment or {}
    options = [{"environment": {**places, **who(rank)}, "before": before} for rank in range(2)]
    processes = [
        started(command, recipe, "--quiet", kill_at=kill_at, **options[0]),
        started(command, recipe, "--quiet", **options[1]),
    ]
    return [ended(process) for process in processes]


def who(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def weights(run: Path, name: str = "meta") -> dict[str, np.ndarray]:
    return load_file(run / name / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def together(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    assert both(inputs, folder) == [0, 0]
    return folder / "run"


def test_two_processes_take_the_steps_of_one_with_twice_the_batch(inputs, tmp_path, together):
    rows = {"data": {"target": {"validation": {"path": "validation.jsonl"}}}}  # 32 to train on, eight batches of 4
    assert both(inputs, tmp_path, "meta", **rows) == [0, 0]
    sections = {**SECTIONS, **rows, "train": {**TRAIN, "batch_size": 8}}
    runs.run(runs.lora_tree(inputs, tmp_path / "alone", **sections), until="meta")
    found, wanted = weights(tmp_path / "run"), weights(tmp_path / "alone")
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6)
    notes = [json.loads((tmp_path / run / "manifest.json").read_text())["done"]["meta"] for run in ("run", "alone")]
    assert notes[0]["processes"] == 2 and "processes" not in notes[1]
    assert notes[0]["validation_loss"] == pytest.approx(notes[1]["validation_loss"], rel=1e-5)


def test_a_whole_run_by_two(together):
    metrics = json.loads((together / "metrics.json").read_text())
    assert metrics["cost"]["together"]["backward_rows"] > 0
    assert (together / "report.html").exists() and (together / "final" / "adapter_config.json").exists()
    assert not list((together / "checkpoints").glob("*"))
    assert (together / "run.log").exists() and (together / "logs" / "1-run.log").exists()


def test_the_first_dies_and_both_go_on_to_the_same_bits(inputs, tmp_path, together):
    moment = ("os.mkdir", r"/meta-\w+-by-2/checkpoint-6$")
    statuses = both(inputs, tmp_path, kill_at=moment)
    assert statuses[0] == KILLED and statuses[1] != 0
    assert list((tmp_path / "run" / "checkpoints").glob("meta-*/checkpoint-3"))
    assert both(inputs, tmp_path) == [0, 0]
    for name in ("meta", "final"):
        for key, value in weights(together, name).items():
            assert value.tobytes() == weights(tmp_path / "run", name)[key].tobytes()


def test_packed_rows_by_two(inputs, tmp_path):
    """The two have different numbers of packed rows in a step."""
    packed = weights_of(inputs, tmp_path, {**TRAIN, "packing": True, "packed_tokens": 20})
    plain = weights_of(inputs, tmp_path, TRAIN)
    for name, value in plain.items():
        np.testing.assert_allclose(packed[name], value, rtol=1e-3, atol=1e-5)


def weights_of(inputs: Path, folder: Path, train: dict) -> dict[str, np.ndarray]:
    assert both(inputs, folder, "meta", train=train, meta={}) == [0, 0]
    found = weights(folder / "run")
    shutil.rmtree(folder / "run")
    return found
