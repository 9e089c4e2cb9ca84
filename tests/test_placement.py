"""Bases in few bits, spread layers, recomputed activations: the same sketches and trainings, or a line that refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import runs
import torch
from accelerate import dispatch_model
from oracle import TOLERANCE, oracle, sketched
from peft import PeftModel
from safetensors.torch import load_file
from test_train import Counter
from tiny import char_tokenizer, llama, random_batch, random_examples
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from gradex_fast.errors import GradexError
from gradex_fast.evaluate import evaluate
from gradex_fast.flops import pass_flops
from gradex_fast.model import load_model, load_outline
from gradex_fast.modules import trainable
from gradex_fast.placement import placed
from gradex_fast.plan import plan
from gradex_fast.recipe import Recipe
from gradex_fast.sections import ModelRecipe, SketchRecipe, TrainRecipe
from gradex_fast.sketch import Sketcher
from gradex_fast.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
BITS = {"4bit": torch.uint8, "8bit": torch.int8}


@pytest.fixture
def base(tmp_path: Path) -> Callable[..., ModelRecipe]:
    """Saves a tiny Llama; gives its recipe."""
    llama().save_pretrained(tmp_path / "llama")
    char_tokenizer(tmp_path / "llama")
    return lambda **options: ModelRecipe(**{"name": str(tmp_path / "llama"), "rank": 3, "dtype": "float32", **options})


def with_gradients(model: torch.nn.Module) -> torch.nn.Module:
    """LoRA's B away from 0, so that A has a gradient too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def step(model: torch.nn.Module, folder: Path) -> dict[str, torch.Tensor]:
    examples = random_examples([9, 4, 12, 6])
    recipe = TrainRecipe(steps=2, learning_rate=1e-2, batch_size=4, checkpoints=1)
    train(model, examples, recipe, pad_id=0, folder=folder, seed=0, stage=Counter())
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


@pytest.mark.parametrize("bits", BITS)
def test_sketches_on_a_quantised_base_equal_single_rows(base, bits):
    pytest.importorskip("bitsandbytes", reason="the extra `quantized` is not installed")
    model, batch = with_gradients(load_model(base(quantization=bits), 0, "cpu")), random_batch("llama")
    assert BITS[bits] in {parameter.dtype for parameter in model.parameters()}
    assert all("lora" in name and p.dtype == torch.float32 for name, p in trainable(model).items())
    found = Sketcher(model, dim=6)(batch)
    gradients, margins, _ = oracle(model, batch, "sequence")
    truth = sketched(gradients, 6)  # the oracle itself is 2e-5 off where a row's gradient mostly cancels
    assert abs(found.g - truth).max() <= TOLERANCE * abs(truth).max()
    np.testing.assert_allclose(found.margin, margins, atol=TOLERANCE)
    plain = oracle(with_gradients(load_model(base(), 0, "cpu")), batch, "sequence")
    assert 1e-4 < abs(plain[1] - margins).max() < 1  # the base is rounded, and is still that base


@pytest.mark.parametrize(("dtype", "computes"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_four_bits_compute_in_the_models_type(base, dtype, computes):
    pytest.importorskip("bitsandbytes", reason="the extra `quantized` is not installed")
    config = load_model(base(quantization="4bit", dtype=dtype), 0, "cpu").config.quantization_config
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype == computes


def test_a_quantised_run_ends_with_an_adapter_that_loads_without_this_package(inputs, tmp_path):
    pytest.importorskip("bitsandbytes", reason="the extra `quantized` is not installed")
    tree = runs.lora_tree(inputs, tmp_path / "run", model={"quantization": "4bit", "gradient_checkpointing": True})
    run = runs.run(tree)
    assert json.loads((run.path / "manifest.json").read_text())["identity"]["model.quantization"] == "4bit"
    nf4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    options = {"quantization_config": BitsAndBytesConfig(**nf4), "dtype": torch.float32, "device_map": "cpu"}
    base = AutoModelForCausalLM.from_pretrained(run.recipe.model.name, **options)
    model = PeftModel.from_pretrained(base, run.path / "final")
    found = evaluate(model, run.corpus.validation.examples, pad_id=run.pad_id, batch_tokens=8192).loss.mean()
    assert found == pytest.approx(run.final["selected"]["validation_loss"], rel=1e-4)
    assert runs.run(tree).selection.chosen == run.selection.chosen


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_in_bfloat16_are_sketched_like_those_in_float32(base, tmp_path, dtype):
    """At the same weights; a unit of bfloat16 is 2^-8 = 0.4 %, and a gradient goes through some ten roundings."""
    wide, narrow = (base(dtype=dtype, adapter_dtype=own, alpha=3) for own in ("float32", "bfloat16"))
    trained = with_gradients(load_model(narrow, 0, "cpu"))
    trained.save_pretrained(tmp_path / "adapter")
    models = [load_model(recipe, 0, "cpu", trained=tmp_path / "adapter") for recipe in (wide, narrow)]
    values = [trainable(model) for model in models]
    for name, value in trainable(trained).items():
        assert (values[0][name].dtype, values[1][name].dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(values[0][name], value.float()) and torch.equal(values[1][name], value)
    exact, found = (Sketcher(model, dim=64)(random_batch("llama")) for model in models)
    assert 0 < np.linalg.norm(found.g - exact.g) < 0.02 * np.linalg.norm(exact.g)
    np.testing.assert_allclose(found.loss, exact.loss, rtol=0.02)


def test_a_run_with_adapters_in_bfloat16(inputs, tmp_path):
    model = {"dtype": "bfloat16", "adapter_dtype": "bfloat16"}
    run = runs.run(runs.lora_tree(inputs, tmp_path / "run", model=model))
    for name in ("meta", "final"):
        assert {v.dtype for v in load_file(run.path / name / "adapter_model.safetensors").values()} == {torch.bfloat16}
    assert np.isfinite(run.final["selected"]["validation_loss"]) and (run.path / "report.html").exists()


def test_without_bitsandbytes_a_run_stops_before_it_starts(inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as Python has it of a package that is not there
    with pytest.raises(GradexError, match=r"^model.quantization needs bitsandbytes: pip install 'gradex_fast\[quanti"):
        runs.run(runs.lora_tree(inputs, tmp_path / "run", model={"quantization": "4bit"}))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "4bit", "adapter": "full"}, "a quantised base cannot be trained itself: needs adapter: lora"),
        ({"like": "somewhere", "adapter": "full"}, "like: needs adapter: lora"),
        ({"adapter_dtype": "bfloat16", "adapter": "full"}, "adapter_dtype: needs adapter: lora"),
        ({"quantization": "3bit"}, "Input should be '4bit' or '8bit'"),
        ({"device_map": {"model": 0, "lm_head": "disk"}}, "'disk': layers that lie there can be neither trained nor"),
    ],
)
def test_what_a_recipe_may_not_ask_for(inputs, tmp_path, options, message):
    with pytest.raises(GradexError) as refused:
        Recipe.build(runs.lora_tree(inputs, tmp_path, model=options))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_layers_on_the_disk_are_refused(base, tmp_path):
    spread = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "cpu"}
    spread["model.rotary_emb"] = "cpu"
    model = dispatch_model(llama(), spread, main_device="cpu", offload_dir=str(tmp_path / "offload"))
    with pytest.raises(GradexError, match=r"^model.device_map: 1 of 5 parts \(model.layers, ...\) do not fit on the"):
        placed(model, base(device_map="auto"), "cpu")


@pytest.mark.parametrize("spread", ["auto", {"": "cpu"}])
def test_where_there_is_only_the_cpu_all_lies_there(base, tmp_path, spread):
    batch = random_batch("llama")
    found, plain = (load_model(base(device_map=m), 0, "cpu") for m in (spread, None))
    assert {parameter.device.type for parameter in found.parameters()} == {"cpu"}
    assert (Sketcher(found, dim=6)(batch).g == Sketcher(plain, dim=6)(batch).g).all()
    one, other = step(found, tmp_path / "a"), step(plain, tmp_path / "b")
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_map_that_names_a_device_which_is_not_there(base):
    with pytest.raises(GradexError, match=r"^model.device_map names device 1, but this run is on the CPU"):
        load_model(base(device_map={"model": 1, "lm_head": "cpu"}), 0, "cpu")


def test_a_map_survives_yaml(inputs, tmp_path):
    tree = runs.lora_tree(inputs, tmp_path, model={"device_map": {"model.layers.0": 0, "lm_head": "cuda:1"}})
    recipe = Recipe.build(tree)
    (tmp_path / "recipe.yaml").write_text(recipe.dump())
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert recipe.model.device_map == (("model.layers.0", 0), ("lm_head", "cuda:1"))


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_recomputed_activations_change_nothing(base, tmp_path, adapter):
    batch, calls = random_batch("llama"), []
    found, plain = (
        with_gradients(load_model(base(adapter=adapter, gradient_checkpointing=on), 0, "cpu")) for on in (True, False)
    )
    for layer in found.modules():
        if type(layer).__name__ == "LlamaMLP":
            layer.register_forward_pre_hook(lambda *_: calls.append(1))
    sketchers = [Sketcher(model, dim=6) for model in (found, plain)]
    first = [sketcher(batch).g for sketcher in sketchers]
    calls.clear()
    again = sketchers[0](batch).g
    assert len(calls) == 4  # two layers, twice each
    assert (first[0] == first[1]).all() and (again == first[0]).all()
    calls.clear()
    one, other = step(found, tmp_path / "a"), step(plain, tmp_path / "b")
    assert len(calls) == 2 * 4
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_the_account_and_the_plan_know_these_models(inputs, tmp_path, base):
    options = {"quantization": "4bit", "device_map": {"model": 0}, "gradient_checkpointing": True}
    found, plain = (pass_flops(base(targets=("q_proj",), **o), SketchRecipe()) for o in (options, {}))
    assert (found.forward == plain.forward).all() and (found.backward == plain.backward).all()
    assert {p.device.type for p in load_outline(base(quantization="8bit")).parameters()} == {"meta"}
    options = {"device_map": "auto", "gradient_checkpointing": True}
    planned = plan(Recipe.build(runs.lora_tree(inputs, tmp_path, model=options, train={"packing": True})))
    assert planned["trainable_parameters"] > 0 and planned["passes"]["sketch"]["flops"] > 0


def test_what_changes_no_more_than_a_rounding_may_change_between_calls(inputs, tmp_path):
    tree = runs.lora_tree(inputs, tmp_path / "run")
    runs.run(tree, until="sketch")
    for options in ({"gradient_checkpointing": True}, {"device_map": "auto"}):
        runs.run(runs.merged(tree, model=options), until="sketch")
    for section, options, message in (
        ("model", {"quantization": "8bit"}, "model.quantization = None, this run has '8bit'"),
        ("train", {"packing": True}, "train.packing = False, this run has True"),
    ):
        if section == "model":
            pytest.importorskip("bitsandbytes", reason="the extra `quantized` is not installed")
        with pytest.raises(GradexError, match=message):
            runs.run(runs.merged(tree, **{section: options}))
