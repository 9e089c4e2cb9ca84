"""Two processes with a part of every parameter each (FSDP2 on the CPU): the trainings of two with whole models."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from processes import KILLED
from safetensors.numpy import load_file
from test_joint import TRAIN, both, weights
from tiny import gpt2, with_lora
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gradex_fast import sharded
from gradex_fast.errors import GradexError
from gradex_fast.sections import ModelRecipe

EXAMPLE = Path(__file__).parents[1] / "examples" / "accelerate" / "fsdp2.yaml"


def launched() -> dict[str, str]:
    """What accelerate's launcher puts into the environment of a process that it starts by the example."""
    arguments = launch_command_parser().parse_args(["--config_file", str(EXAMPLE), "-m", "gradex_fast"])
    found = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    return {name: value for name, value in found.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


def on_the_cpu() -> None:
    """Splits parameters on the CPU too, where torch can, and accelerate does not ask it to. Notes how many are here."""
    plain = AcceleratorState.__init__

    def opened(self, *given, fsdp_plugin=None, **named):
        plain(self, *given, fsdp_plugin=fsdp_plugin, **named)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

    def note(optimizer, *_):
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        parts = [parameter.to_local() for parameter in trained if isinstance(parameter, DTensor)]
        here, all = sum(part.numel() for part in parts), sum(parameter.numel() for parameter in trained)
        Path(os.environ["PARTS"], os.environ["RANK"]).write_text(f"{here} {all}")

    AcceleratorState.__init__ = opened
    register_optimizer_step_pre_hook(note)


def in_parts(inputs: Path, folder: Path, command: str = "run", **options) -> list[int]:
    (folder / "parts").mkdir(exist_ok=True)
    environment = {**launched(), "ACCELERATE_USE_CPU": "true", "PARTS": str(folder / "parts")}
    return both(inputs, folder, command, environment=environment, before=on_the_cpu, **options)


def manifest(run: Path) -> dict:
    return json.loads((run / "manifest.json").read_text())["done"]


def require_same(found: Path, wanted: Path, file: str = "meta/adapter_model.safetensors", rtol: float = 1e-4) -> None:
    values = load_file(found / file)
    assert values.keys() == load_file(wanted / file).keys()
    for name, value in load_file(wanted / file).items():
        assert values[name].dtype == value.dtype
        np.testing.assert_allclose(values[name], value, rtol=rtol, atol=1e-5, err_msg=name)
    notes = manifest(found)["meta"], manifest(wanted)["meta"]
    assert notes[0]["validation_loss"] == pytest.approx(notes[1]["validation_loss"], rel=1e-5)


@pytest.fixture(scope="module")
def split(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    assert in_parts(inputs, folder) == [0, 0]
    return folder / "run"


@pytest.fixture(scope="module")
def copied(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by two processes with whole models."""
    folder = tmp_path_factory.mktemp("copied")
    assert both(inputs, folder) == [0, 0]
    return folder / "run"


def test_a_whole_run_is_that_of_plain_data_parallelism(split, copied):
    require_same(split, copied)
    require_same(split, copied, "final/adapter_model.safetensors")
    found, wanted = manifest(split)["meta"], manifest(copied)["meta"]
    assert (found["best_step"], found["looks"]) == (wanted["best_step"], wanted["looks"])
    chosen = [json.loads((run / "selection.json").read_text())["chosen"] for run in (split, copied)]
    assert chosen[0] == chosen[1]
    assert (split / "report.html").exists() and not list((split / "checkpoints").glob("*"))


def test_each_has_a_part(split):
    parts = [tuple(map(int, path.read_text().split())) for path in sorted((split.parent / "parts").iterdir())]
    assert len(parts) == 2 and all(0 < here < 0.8 * total for here, total in parts)
    assert sum(here for here, _ in parts) == parts[0][1] == parts[1][1]


def test_the_first_dies_and_both_go_on_to_the_same_bits(inputs, tmp_path, split):
    moment = ("os.mkdir", r"/meta-\w+-by-2-fsdp/checkpoint-6$")
    statuses = in_parts(inputs, tmp_path, kill_at=moment)
    assert statuses[0] == KILLED and statuses[1] != 0
    (kept,) = (tmp_path / "run" / "checkpoints").glob("meta-*/checkpoint-3")
    assert not list(kept.rglob("*.metadata")) and (kept / "optimizer.bin").exists()
    assert in_parts(inputs, tmp_path) == [0, 0]
    for name in ("meta", "final"):
        for key, value in weights(split, name).items():
            assert value.tobytes() == weights(tmp_path / "run", name)[key].tobytes()
