"""Two processes with a part of every parameter each (FSDP2 on the CPU): the trainings of two with whole models."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from parts import broken_on_the_cpu, launched, on_the_cpu
from processes import KILLED
from safetensors.numpy import load_file
from test_joint import TRAIN, both, weights
from tiny import gpt2, with_lora

from gradex_fast import sharded
from gradex_fast.errors import GradexError
from gradex_fast.sections import ModelRecipe


def in_parts(inputs: Path, folder: Path, command: str = "run", before=on_the_cpu, otherwise=(), **options) -> list[int]:
    """`otherwise`: pairs of what the environment says in place of the example."""
    (folder / "parts").mkdir(exist_ok=True)
    environment = {**launched(), "ACCELERATE_USE_CPU": "true", "PARTS": str(folder / "parts"), **dict(otherwise)}
    return both(inputs, folder, command, environment=environment, before=before, **options)


def manifest(run: Path) -> dict:
    return json.loads((run / "manifest.json").read_text())["done"]


def require_same(found: Path, wanted: Path, file: str = "meta/adapter_model.safetensors") -> None:
    """To a thousandth of a step of Adam's, which makes steps of rounding where a gradient is 0 (keys' biases)."""
    values, step = load_file(found / file), TRAIN["learning_rate"]
    assert values.keys() == load_file(wanted / file).keys()
    for name, value in load_file(wanted / file).items():
        assert values[name].dtype == value.dtype
        np.testing.assert_allclose(values[name], value, rtol=1e-4, atol=1e-3 * step, err_msg=name)
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
    """Whatever accelerate's configuration says of checkpoints and of how a model is loaded."""
    otherwise = {"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}.items()
    moment = ("os.mkdir", r"/meta-\w+-by-2-fsdp/checkpoint-6$")
    statuses = in_parts(inputs, tmp_path, kill_at=moment, otherwise=otherwise)
    assert statuses[0] == KILLED and statuses[1] != 0
    (kept,) = (tmp_path / "run" / "checkpoints").glob("meta-*/checkpoint-3")
    assert not list(kept.rglob("*.metadata")) and (kept / "optimizer.bin").exists()
    assert in_parts(inputs, tmp_path, otherwise=otherwise) == [0, 0]
    for name in ("meta", "final"):
        for key, value in weights(split, name).items():
            assert value.tobytes() == weights(tmp_path / "run", name)[key].tobytes()


SHORT = {**TRAIN, "epochs": 1, "checkpoints": 0}
LARGE = {"dtype": "bfloat16", "gradient_checkpointing": True}
PACKED = {**SHORT, "packing": True, "packed_tokens": 20, "accumulation": 2}
FAST = {**SHORT, "learning_rate": 0.1}  # so that the first look is the best, and the last step is taken back
LOOKS = {"sam": 0.05, "patience": 9, "every": 1}
KINDS = {
    "all parameters, sharpness-aware, stopped early": {"model": {"adapter": "full"}, "train": FAST, "meta": LOOKS},
    "float32 adapters of a bfloat16 base, packed": {"model": LARGE, "train": PACKED, "meta": {}},
    "a classifier and its new head": {"train": SHORT, "meta": {}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_training(inputs, tmp_path, kind):
    sections, tree = KINDS[kind], runs.classifier_tree if "classifier" in kind else runs.lora_tree
    for name, begin in (("split", in_parts), ("copied", both)):
        (tmp_path / name).mkdir()
        assert begin(inputs, tmp_path / name, "meta", tree=tree, **sections) == [0, 0]
    file = "meta/model.safetensors" if "all parameters" in kind else "meta/adapter_model.safetensors"
    require_same(tmp_path / "split" / "run", tmp_path / "copied" / "run", file)
    found, wanted = (set(runs.digests(tmp_path / name / "run" / "meta")) for name in ("split", "copied"))
    assert found == wanted
    notes = [manifest(tmp_path / name / "run")["meta"] for name in ("split", "copied")]
    assert notes[0].get("best_step") == notes[1].get("best_step")
    assert ("stopped early" in kind) == (notes[0].get("best_step", inf) < notes[0].get("looks", 0))
    configs = [(tmp_path / name / "run" / "meta" / "config.json") for name in ("split", "copied")]
    assert not configs[0].exists() or configs[0].read_text() == configs[1].read_text()


def test_what_one_process_finds_broken_all_name(inputs, tmp_path):
    """The part of the last layer's adapter that the second process has."""
    assert in_parts(inputs, tmp_path, "meta", before=broken_on_the_cpu, train={**SHORT, "steps": 1}, meta={}) == [2, 2]
    for rank in range(2):
        said = (tmp_path / "parts" / f"said-{rank}").read_text()
        assert "lora_B.default.weight is not finite after the last step" in said


REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": ("true", "DeepSpeed, which is not supported: start it for FSDP2"),
    "FSDP_VERSION": ("1", "fsdp_version: 2"),
    "FSDP_OFFLOAD_PARAMS": ("true", "fsdp_offload_params is true"),
    "FSDP_ACTIVATION_CHECKPOINTING": ("true", "set model.gradient_checkpointing"),
    "ACCELERATE_MIXED_PRECISION": ("bf16", "mixed_precision is bf16"),
}


@pytest.fixture
def environment(monkeypatch) -> pytest.MonkeyPatch:
    """This process's, as the launcher makes it."""
    for name, value in {**launched(), "FSDP_TRANSFORMER_CLS_TO_WRAP": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("FSDP_TRANSFORMER_CLS_TO_WRAP")  # what a run sets there goes with the test
    return monkeypatch


@pytest.mark.parametrize("variable", REFUSED)
def test_what_is_refused_by_name(environment, variable):
    recipe = ModelRecipe(name="any")
    sharded.check(recipe)
    value, message = REFUSED[variable]
    environment.setenv(variable, value)
    with pytest.raises(GradexError, match=message):
        sharded.check(recipe)


@pytest.mark.parametrize("key", ["quantization", "device_map"])
def test_recipes_that_place_layers_themselves(environment, key):
    with pytest.raises(GradexError, match=f"model.{key}: FSDP splits"):
        sharded.check(ModelRecipe(name="any", **{key: {"quantization": "4bit", "device_map": "auto"}[key]}))


def test_a_run_says_so_before_it_trains(inputs, tmp_path, environment):
    tree = runs.lora_tree(inputs, tmp_path / "run")
    with pytest.raises(GradexError, match="several processes with GPUs only"):  # one process, no GPU
        runs.run(tree, until="meta")
    environment.setenv("FSDP_VERSION", "1")
    with pytest.raises(GradexError, match="fsdp_version: 2"):
        runs.run({**tree, "output": str(tmp_path / "other")}, until="prepare")


def test_parameters_that_cannot_be_split(environment):
    model = with_lora(gpt2())
    sharded.settle(model.bfloat16())
    next(p for p in model.parameters() if p.requires_grad).data = torch.zeros(3, 16)
    with pytest.raises(GradexError, match=r"one type only, but \S+lora_A\S+ is float32, \S+ is bfloat16"):
        sharded.settle(model)
    model = gpt2()
    model.scale = torch.nn.Parameter(torch.tensor(1.0), requires_grad=False)
    with pytest.raises(GradexError, match="cannot split scale"):
        sharded.settle(model)
