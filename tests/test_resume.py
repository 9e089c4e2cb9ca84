"""Killed at any moment, the same command goes on and ends with the bits of an uninterrupted run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import runs
from processes import KILLED, TERMINATED, command

BITS = ("meta/*.safetensors", "sketches/*.safetensors", "final/*.safetensors", "subsets.parquet", "scores.csv")
# A checkpoint after every third of 10 steps, 5 to an epoch: training goes on in the middle of one. Dropout needs the
# state of the random numbers as well.
TRAINING = {"epochs": 2, "learning_rate": 1e-2, "batch_size": 8, "checkpoints": 2}
SECTIONS = {
    "model": {"dropout": 0.1},
    "train": TRAINING,
    "sketch": {"dim": 16, "shard_rows": 10},
    "estimate": {"anchors": 2, "anchor_train": {"steps": 3, "batch_size": 8, "checkpoints": 1}},
    "select": {"method": "forward", "keep": 2},
}
MOMENTS = {  # when it is killed; and what was finished by then, which must not be done again
    "in meta-training": (("os.mkdir", r"/meta-\w+/checkpoint-6$"), ("os.mkdir", r"/meta-\w+/checkpoint-3$")),
    "in a checkpoint": (("open", r"/meta-\w+/checkpoint-6/trainer_state"), ("os.mkdir", r"/meta-\w+/checkpoint-3$")),
    "before sketching": (("os.mkdir", r"run/sketches$"), ("os.mkdir", r"checkpoints/meta")),
    "between shards": (("os.rename", r"sketches/\.train-000002"), ("open", r"sketches/\.train-000001")),
    "in an anchor": (("os.mkdir", r"/anchor 2-\w+/checkpoint-2$"), ("os.mkdir", r"checkpoints/anchor 1")),
    "in the final training": (("os.mkdir", r"/final-\w+/checkpoint-4$"), ("os.mkdir", r"/final-\w+/checkpoint-2$")),
    "in the report": (("os.rename", r"\.report\.md"), ("os.mkdir", r"checkpoints/")),
}
MORE_MOMENTS = (
    ("open", r"\.manifest\.json"),
    ("shutil.rmtree", r"checkpoints/meta-\w+/checkpoint-3$"),
    ("open", r"meta/adapter_config"),
    ("open", r"sketches/\.locks/train-000002"),
    ("open", r"sketches/\.validation-000000"),
    ("os.rename", r"sketches/\.train\.npy"),
    ("open", r"\.selection\.json"),
    ("shutil.rmtree", r"checkpoints/final-\w+\.gone$"),
    ("open", r"final/adapter_config"),
)
TERMINATIONS = {  # when SIGTERM comes; what is there then; and what must not be done again
    "in meta-training": (
        ("open", r"/meta-\w+/checkpoint-3/trainer_state"),  # written to its end, and one step more
        "checkpoints/meta-*/checkpoint-4/trainer_state.json",
        ("os.mkdir", r"/meta-\w+/checkpoint-[34]$"),
    ),
    "in the last step": (
        ("open", r"/meta-\w+/checkpoint-9/trainer_state"),
        "checkpoints/meta-*/checkpoint-10/trainer_state.json",
        ("os.mkdir", r"/meta-\w+/checkpoint-"),
    ),
    "between shards": (
        ("open", r"sketches/\.train-000002"),
        "sketches/train-000001.safetensors",
        ("open", r"sketches/\.train-00000[01]"),
    ),
}


def recipe(inputs: Path, folder: Path) -> str:
    return str(runs.write_recipe(folder / "recipe.yaml", runs.lora_tree(inputs, folder / "run", **SECTIONS)))


def outcome(run: Path) -> dict:
    """Everything that must not differ."""
    bits = {name: digest for pattern in BITS for name, digest in runs.digests(run, pattern).items()}
    selection = json.loads((run / "selection.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    for spent in metrics["cost"].values():
        assert spent.pop("seconds") > 0
    return {**bits, **{key: value for key, value in {**selection, **metrics}.items() if "seconds" not in key}}


@pytest.fixture(scope="module")
def uninterrupted(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert command("run", recipe(inputs, folder), "--quiet") == 0
    found = outcome(folder / "run")
    assert len([name for name in found if name.endswith(".safetensors")]) == 2 + 5
    return found


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_goes_on(inputs, tmp_path, uninterrupted, moment):
    path = recipe(inputs, tmp_path)
    killed, never_again = MOMENTS[moment]
    assert command("run", path, "--quiet", kill_at=killed) == KILLED
    assert not (tmp_path / "run" / "report.html").exists()
    assert command("run", path, "--quiet", kill_at=never_again) == 0
    assert outcome(tmp_path / "run") == uninterrupted


def test_a_run_may_be_killed_again_and_again(inputs, tmp_path, uninterrupted):
    path = recipe(inputs, tmp_path)
    for moment in MORE_MOMENTS:
        assert command("run", path, "--quiet", kill_at=moment) == KILLED
    assert command("run", path, "--quiet") == 0
    assert outcome(tmp_path / "run") == uninterrupted


@pytest.mark.parametrize("moment", TERMINATIONS)
def test_a_terminated_run_saves_and_goes_on(inputs, tmp_path, uninterrupted, moment):
    path, (sent, saved, never_again) = recipe(inputs, tmp_path), TERMINATIONS[moment]
    assert command("run", path, "--quiet", terminate_at=sent) == TERMINATED
    assert list((tmp_path / "run").glob(saved))
    assert command("run", path, "--quiet", kill_at=never_again) == 0
    assert outcome(tmp_path / "run") == uninterrupted
