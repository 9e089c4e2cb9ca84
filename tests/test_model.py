"""Models are saved and loaded to the bit, seeds decide what is new, and what cannot be loaded is said in one line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import MODELS, bert, char_tokenizer, gpt2, llama, random_batch, t5
from transformers import BloomConfig, RobertaConfig

from gradex_fast.errors import GradexError
from gradex_fast.model import fingerprint, load_model, load_tokenizer, position_limit, save_model
from gradex_fast.modules import trainable
from gradex_fast.sections import ModelRecipe


@pytest.fixture
def pretrained(tmp_path):
    """Saves a tiny model; gives its recipe."""

    def saved(name: str = "gpt2", **options) -> ModelRecipe:
        folder = tmp_path / name
        MODELS[name]().save_pretrained(folder)
        char_tokenizer(folder)
        if name == "bert":
            options = {"task": "sequence-classification", "labels": 3, **options}
        return ModelRecipe(name=str(folder), rank=3, **options)

    return saved


def load(recipe: ModelRecipe, seed: int = 0, trained=None) -> torch.nn.Module:
    return load_model(recipe, seed, "cpu", trained)


def refused(call, *arguments) -> str:
    with pytest.raises(GradexError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_saved_and_loaded_to_the_bit(tmp_path, pretrained, name, adapter):
    recipe = pretrained(name, adapter=adapter)
    model = load(recipe)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += torch.randn_like(parameter)
    save_model(model, tmp_path / "trained")
    again = load(recipe, seed=9, trained=tmp_path / "trained")
    assert set(trainable(again)) == set(trainable(model))
    assert all(torch.equal(p, trainable(again)[key]) for key, p in trainable(model).items())
    ids = random_batch(name)["input_ids"]
    assert torch.equal(model.eval()(input_ids=ids).logits, again.eval()(input_ids=ids).logits)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_the_seed_decides_new_parameters_and_no_others(pretrained, name):
    recipe = pretrained(name)
    one, same, other = (dict(load(recipe, seed).named_parameters()) for seed in (1, 1, 2))
    assert all(torch.equal(p, same[key]) for key, p in one.items())
    drawn = [key for key, p in one.items() if not torch.equal(p, other[key])]
    assert drawn and all("lora_A" in key for key in drawn)


def test_full_training_trains_everything_and_lora_its_adapter(pretrained):
    assert len(trainable(load(pretrained(adapter="full")))) == len(list(gpt2().parameters()))
    assert all("lora" in name for name in trainable(load(pretrained(targets=("c_attn",)))))


def test_a_tokenizer_without_pad_pads_with_eos(tmp_path, pretrained):
    recipe = pretrained()
    assert load_tokenizer(recipe).pad_token_id == 0
    char_tokenizer(tmp_path / "gpt2", pad=False)
    assert load_tokenizer(recipe).pad_token_id == load_tokenizer(recipe).eos_token_id == 1
    char_tokenizer(tmp_path / "gpt2", pad=False, eos=False)
    assert "neither a pad nor an EOS token" in refused(load_tokenizer, recipe)


@pytest.mark.parametrize("call", [load, load_tokenizer, fingerprint, position_limit])
def test_a_model_that_is_not_there_or_not_known(pretrained, call):
    recipe = pretrained()
    config = recipe.name + "/config.json"
    with open(config) as file:
        settings = json.load(file) | {"model_type": "nonsense"}
    assert "no such folder" in refused(call, recipe.model_copy(update={"name": recipe.name + "/nowhere"}))
    if call is not fingerprint:  # a folder's is read from its files
        with open(config, "w") as file:
            json.dump(settings, file)
        assert "model type `nonsense`" in refused(call, recipe)


def test_weights_that_cannot_be_read(tmp_path, pretrained):
    recipe, weights = pretrained(), tmp_path / "gpt2" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    assert "cannot be loaded" in refused(load, recipe)
    weights.unlink()
    torch.save(gpt2().state_dict(), tmp_path / "gpt2" / "pytorch_model.bin")
    assert "no file named model.safetensors" in refused(load, recipe)


def test_tasks_that_the_model_is_not_for(tmp_path, pretrained):
    assert "classes" in refused(load, pretrained("bert", labels=None))
    assert "model.labels is 2, but" in refused(load, pretrained("bert", labels=2))
    assert "is an encoder:" in refused(load, pretrained("bert", task="causal-lm"))
    assert "is an encoder-decoder" in refused(load, pretrained("t5"))
    assert "model.targets ('nothing',)" in refused(load, pretrained(targets=("nothing",)))


def test_the_fingerprint_changes_with_any_tensor_and_with_the_configuration(tmp_path, pretrained):
    recipe, found = pretrained("llama"), set()
    weights = load_file(tmp_path / "llama" / "model.safetensors")
    assert fingerprint(recipe) == fingerprint(pretrained("llama"))
    for name in weights:
        save_file(weights | {name: weights[name] + 1}, tmp_path / "llama" / "model.safetensors")
        found.add(fingerprint(recipe))
    llama(rms_norm_eps=0.1).config.save_pretrained(tmp_path / "llama")
    assert len(found | {fingerprint(recipe)}) == len(weights) + 1


def test_how_far_positions_reach(tmp_path):
    tiny = [(gpt2().config, 16), (bert().config, 16), (llama().config, 32), (t5().config, None)]
    roberta = RobertaConfig(max_position_embeddings=514)
    for config, limit in [*tiny, (BloomConfig(), None), (roberta, 512)]:
        config.save_pretrained(tmp_path)
        assert position_limit(ModelRecipe(name=str(tmp_path))) == limit, type(config)
