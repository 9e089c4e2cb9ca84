"""``train.report_to``: what the Trainer logs arrives there, and nothing else changes."""

from __future__ import annotations

import json

import pytest
import runs
from safetensors.torch import load_file

from gradex_fast.errors import GradexError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_tensorboard_gets_the_losses_of_every_training_and_the_run_stays_the_same(inputs, tmp_path):
    pytest.importorskip("tensorboard", reason="of the extra `test`, tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tree = runs.language_tree(inputs, tmp_path / "run", train={"epochs": 1})
    reported = runs.merged(tree, train={"report_to": ["tensorboard"]})
    runs.run(tree, until="meta")
    note = json.loads((tmp_path / "run" / "manifest.json").read_text())["done"]["meta"]
    run = runs.run(reported)
    assert run.workspace.done("meta") == note  # another place for reports is no other training
    (final,) = (run.path / "logs").glob("final-*")
    events = EventAccumulator(str(final)).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("train/loss")]
    steps = -(-run.workspace.done("final")["rows"] // 8)
    assert [step for step, _ in losses] == list(range(1, steps + 1)) and all(0 < loss < 20 for _, loss in losses)
    plain = runs.run({**tree, "output": str(tmp_path / "plain")})
    one, other = (load_file(made.path / "final" / "model.safetensors") for made in (run, plain))
    assert all((one[name] == other[name]).all() for name in other)
    runs.run(reported, until="prepare", overwrite=True)
    assert not (run.path / "logs").exists()


def test_what_is_not_installed_is_said_before_anything_starts(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("DISABLE_MLFLOW_INTEGRATION", "TRUE")  # transformers' own way to have it not there
    tree = runs.language_tree(inputs, tmp_path / "run", train={"report_to": ["mlflow"]})
    with pytest.raises(GradexError, match=r"^train.report_to: mlflow is not installed: pip install mlflow$"):
        runs.run(tree)
    assert not (tmp_path / "run").exists()
