"""A PEFT adapter from elsewhere as θ*: nothing is meta-trained, and the final model's is a fresh one like it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import runs
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gradex_fast import finetuning
from gradex_fast.errors import GradexError
from gradex_fast.model import load_model
from gradex_fast.modules import trainable
from gradex_fast.plan import plan
from gradex_fast.recipe import Recipe
from gradex_fast.sketch import Sketcher, sketch_examples

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def adapter(inputs: Path, tmp_path: Path) -> Path:
    """Of rank 5 with rsLoRA, and trained: B is not 0. The recipes' own would have rank 2 on other layers."""
    config = LoraConfig(r=5, lora_alpha=7, target_modules=["c_proj"], use_rslora=True, task_type="CAUSAL_LM")
    torch.manual_seed(4)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(inputs / "gpt2"), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def tree(inputs: Path, tmp_path: Path, adapter: Path, **sections) -> runs.Tree:
    return runs.merged(runs.lora_tree(inputs, tmp_path / "run", meta={"adapter": str(adapter)}), **sections)


def test_a_run_expands_at_the_adapter_and_trains_a_fresh_one_like_it(inputs, tmp_path, adapter, monkeypatch):
    trained, real = [], finetuning.train

    def recorded(model, *given, **options):
        before = {name: parameter.detach().clone() for name, parameter in trainable(model).items()}
        trained.append((options["folder"].name.partition("-")[0], before))
        return real(model, *given, **options)

    monkeypatch.setattr(finetuning, "train", recorded)
    run = runs.run(tree(inputs, tmp_path, adapter))
    kept, given = (load_file(folder / "adapter_model.safetensors") for folder in (run.path / "meta", adapter))
    assert kept.keys() == given.keys() and all(torch.equal(kept[name], given[name]) for name in given)
    model = load_model(run.recipe.model, 0, "cpu", trained=adapter)
    expected = sketch_examples(
        Sketcher(model, dim=16), run.corpus.validation.examples, pad_id=run.pad_id, batch_tokens=8192
    )
    assert abs(run.validation.g - expected.g).max() <= 1e-5 * abs(expected.g).max()
    ((name, before),) = trained
    assert name == "final" and {p.shape[0] for n, p in before.items() if "lora_A" in n} == {5}
    assert all(not p.any() for n, p in before.items() if "lora_B" in n)
    final = load_model(run.recipe.model, 0, "cpu", trained=run.path / "final").peft_config["default"]
    assert (final.r, final.lora_alpha, final.use_rslora, set(final.target_modules)) == (5, 7, True, {"c_proj"})
    assert run.summary["final"].keys() == {"selected", "adapter"}
    assert run.workspace.done("meta")["rows"] == 0
    assert plan(run.recipe)["trainable_parameters"] == sum(p.numel() for p in trainable(model).values())
    assert Recipe.load(run.path / "config.yaml") == run.recipe


def test_another_adapter_in_its_place_is_another_run(inputs, tmp_path, adapter):
    recipe = tree(inputs, tmp_path, adapter)
    runs.run(recipe, until="meta")
    runs.run(recipe, until="meta")
    weights = load_file(adapter / "adapter_model.safetensors")
    first = next(iter(weights))
    save_file({**weights, first: weights[first] + 1e-3}, adapter / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(GradexError, match=r"manifest.json was made with model = '\w+', this run has"):
        runs.run(recipe, until="meta")
    shutil.copytree(adapter, tmp_path / "moved")
    with pytest.raises(GradexError, match=r"meta.adapter = .*adapter', this run has .*moved"):
        runs.run(tree(inputs, tmp_path, tmp_path / "moved"), until="meta")


def test_only_safetensors_are_read(inputs, tmp_path, adapter):
    recipe = tree(inputs, tmp_path, adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(weights, adapter / "adapter_model.bin")
    with pytest.raises(GradexError, match=r"holds no adapter_model.safetensors, and no other format is read; load the"):
        runs.run(recipe, until="meta")
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(GradexError, match=r"adapter holds no adapter_config.json: it is no PEFT adapter's folder"):
        runs.run(recipe, until="meta")
    assert not (tmp_path / "run").exists()


def test_an_adapter_of_another_model_is_said_in_one_line(inputs, tmp_path, adapter):
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace('"c_proj"', '"q_proj"'))
    with pytest.raises(GradexError, match=r"adapter is no adapter for .*gpt2': Target modules.*not found") as refused:
        runs.run(tree(inputs, tmp_path, adapter), until="meta")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"meta": {"training": "all"}}, "adapter: PATH is θ* already; training: all would throw it away"),
        ({"meta": {"sam": 0.1}}, "training: none leaves nothing for sam or patience to change"),
        ({"model": {"adapter": "full"}}, "like: needs adapter: lora"),
    ],
)
def test_what_a_recipe_may_not_ask_for(inputs, tmp_path, adapter, sections, message):
    recipe = tree(inputs, tmp_path, adapter)
    for name, section in sections.items():
        recipe[name] = {**recipe[name], **section}
    with pytest.raises(GradexError) as refused:
        Recipe.build(recipe)
    assert message in str(refused.value)


def test_a_recipe_made_of_sections_names_the_configuration_itself(inputs, tmp_path, adapter):
    recipe = Recipe.build(tree(inputs, tmp_path, adapter))
    own = recipe.model.model_copy(update={"like": None})
    with pytest.raises(ValueError, match=r"meta.adapter: model.like must name the folder"):
        Recipe(model=own, data=recipe.data, meta=recipe.meta)
    assert Recipe(model=recipe.model, data=recipe.data, meta=recipe.meta).model.like == str(adapter)
