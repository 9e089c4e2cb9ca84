"""`gradex-fast plan`: from the outline alone, memory as autograd really keeps it, and hours by hand."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import runs
import torch
from tiny import MODELS, adapted, random_examples
from tiny import llama as tiny_llama
from transformers import LlamaConfig

from gradex_fast.batch import collate
from gradex_fast.capture import Capture
from gradex_fast.cli import main
from gradex_fast.data import load_corpus
from gradex_fast.flops import features, pass_flops, total
from gradex_fast.footprint import footprint, row_bytes
from gradex_fast.losses import token_losses
from gradex_fast.memory import Saved
from gradex_fast.model import load_model, load_outline, load_tokenizer, save_model
from gradex_fast.modes import evaluating
from gradex_fast.modules import trainable
from gradex_fast.plan.cards import CARDS, OWN_UTILISATION, USABLE, UTILISATION
from gradex_fast.recipe import Recipe
from gradex_fast.rows import laid_out
from gradex_fast.sections import ModelRecipe, SketchRecipe

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN = SketchRecipe()
CHOICE = {"keep": 2, "subsets": 10, "fraction": 0.5}


@pytest.fixture
def recipe(inputs: Path, tmp_path: Path) -> str:
    """A run of whose model there are no weights."""
    shutil.copytree(inputs, tmp_path / "inputs", ignore=shutil.ignore_patterns("*.safetensors"))
    tree = runs.language_tree(tmp_path / "inputs", tmp_path / "run", select=CHOICE, estimate={"anchors": 3})
    return str(runs.write_recipe(tmp_path / "recipe.yaml", tree))


def planned(recipe: str, capsys, *arguments: str) -> dict:
    assert main(["plan", recipe, "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("name", "adapter"), [("gpt2", "full"), ("llama", "all"), ("llama", "some"), ("bert", "full")])
def test_a_row_keeps_what_autograd_keeps_of_real_numbers(name, adapter):
    model, task = adapted(name, adapter, attn_implementation="eager"), "causal-lm"
    batch = collate(random_examples([9], supervised=3), 0)
    if name == "bert":
        batch["labels"], task = torch.tensor([1]), "sequence-classification"
    outline = adapted(name, adapter, attn_implementation="eager").to("meta")
    training, sketching, _ = row_bytes(outline, PLAIN, task, 9, 3)
    with Saved(model.train()) as saved:
        token_losses(model, batch)
    extra = 0 if name == "bert" else 8 * 3  # the loss keeps its targets too, and a mask
    assert abs(sum(saved.sizes.values()) - training) <= 0.02 * training + extra
    given, rows = laid_out(batch, False)
    capture = Capture(model)
    with evaluating(model), capture.taps(rows, lambda *_: None), torch.enable_grad(), Saved(model) as saved:
        token_losses(model, given)
    assert abs(sum(saved.sizes.values()) - sketching) <= 0.02 * sketching + extra


@pytest.fixture
def base(tmp_path: Path):
    """A recipe of a tiny Llama of so many blocks that is really there."""

    def saved(blocks: int = 2, **options) -> ModelRecipe:
        if not (tmp_path / str(blocks)).exists():
            tiny_llama(num_hidden_layers=blocks).save_pretrained(tmp_path / str(blocks))
        return ModelRecipe(**{"name": str(tmp_path / str(blocks)), "rank": 3, "attention": "eager", **options})

    return saved


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_a_quantised_base_weighs_what_bitsandbytes_makes_of_it(base, bits, dtype):
    pytest.importorskip("bitsandbytes", reason="the extra `quantized` is not installed")
    recipe = base(quantization=bits, dtype=dtype)
    model, found = load_model(recipe, 0, "cpu"), footprint(recipe, PLAIN)
    tensors = list(model.parameters())
    for weight in model.parameters():
        if state := getattr(weight, "quant_state", None):
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        elif (scales := getattr(weight, "SCB", None)) is not None:
            tensors.append(scales)
    assert found.weights == sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert found.gradients == 4 * sum(parameter.numel() for parameter in trainable(model).values())  # adapters alone
    assert (found.dtype, found.trained_dtype) == (dtype, "float32")
    assert found.unpacked == 16 * 20 * (4 if dtype == "float32" else 2)
    training, sketching, _ = row_bytes(load_outline(recipe), PLAIN, "causal-lm", 9, 3, recipe)
    real = bytes_kept(model)
    assert abs(real - training) <= 0.02 * real and abs(real - sketching) <= 0.02 * real


def test_adapters_in_bfloat16_weigh_and_keep_less(base):
    wide, narrow = (base(dtype="bfloat16", adapter_dtype=dtype) for dtype in ("float32", "bfloat16"))
    found, model = footprint(narrow, PLAIN), load_model(narrow, 0, "cpu")
    adapters = sum(parameter.numel() for parameter in trainable(model).values())
    assert found.weights == sum(p.numel() * p.element_size() for p in model.parameters())
    assert (found.gradients, found.trained_dtype) == (2 * adapters, "bfloat16")
    assert footprint(wide, PLAIN).weights - found.weights == 2 * adapters
    training, sketching, _ = row_bytes(load_outline(narrow), PLAIN, "causal-lm", 9, 3, narrow)
    real = bytes_kept(model)
    assert abs(real - training) <= 0.02 * real and abs(real - sketching) <= 0.02 * real
    assert real < 0.9 * bytes_kept(load_model(wide, 0, "cpu"))


def bytes_kept(model: torch.nn.Module) -> int:
    """Of a real training pass over 9 tokens, 3 supervised: by autograd's hooks, and inputs that functions keep."""
    with Saved(model.train()) as saved:
        losses, *_ = token_losses(model, collate(random_examples([9], supervised=3), 0))
        nodes, seen = [losses.grad_fn], set()
        while nodes:
            node = nodes.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            nodes += [parent for parent, _ in node.next_functions]
            if isinstance(getattr(node, "A", None), torch.Tensor):
                saved.keep(node.A)
    return saved.total


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputed_layers_keep_their_inputs_and_the_inside_of_one(base, dtype):
    recipe = base(gradient_checkpointing=True, dtype=dtype)
    one, two, inputs = (
        bytes_kept(load_model(each, 0, "cpu")) for each in (base(1, dtype=dtype), base(dtype=dtype), recipe)
    )
    layer = two - one - 9 * 16 * (4 if dtype == "float32" else 2)  # without its input
    training, sketching, _ = row_bytes(load_outline(recipe), PLAIN, "causal-lm", 9, 3, recipe)
    assert abs(inputs + layer - training) <= 0.05 * training and training < 0.7 * two
    assert abs(sketching - training) <= 0.02 * training


def test_the_plan_reads_no_weights(recipe, tmp_path, capsys):
    before = runs.digests(tmp_path)
    found = planned(recipe, capsys)
    assert runs.digests(tmp_path) == before
    assert [row["rows"] for row in found["sources"]] == [8, 8, 8, 8, 4, 6, 5]
    assert found["cards"].keys() == CARDS.keys() and found["model"]["dtype"] == "float32"
    assert main(["plan", recipe, "--cards", "H100", "--utilisation", "0.5"]) == 0
    out = capsys.readouterr().out
    for text in ("H100", "fits", "memory, training:", "the choice costs", "assumed: 50%", "float32"):
        assert text in out
    assert "RTX4090" not in out


def test_memory_is_the_models(recipe, inputs, capsys):
    found = planned(recipe, capsys, "--cards", "A100-40", "train.batch_size=4")["memory"]
    numel = sum(parameter.numel() for parameter in trainable(runs_model(inputs)).values())
    training, sketch = found["training"], found["sketch"]
    assert training["weights"] == training["gradients"] == sketch["weights"] == 4 * numel
    assert training["optimiser"] == 8 * numel and sketch["optimiser"] == sketch["gradients"] == 0
    assert (training["rows"], training["activations"]) == (4, 4 * training["row"])
    assert training["total"] == 16 * numel + training["activations"]
    assert sketch["total"] == 4 * numel + sketch["rows"] * sketch["row"]


def runs_model(inputs: Path) -> torch.nn.Module:
    return load_model(ModelRecipe(name=str(inputs / "gpt2"), adapter="full"), 0, "cpu")


def test_hours_are_flops_over_the_assumed_share_of_the_peak(recipe, capsys):
    found = planned(recipe, capsys, "--cards", "H200", "L40S", "--utilisation", "0.25")
    for name in ("H200", "L40S"):
        card = found["cards"][name]
        for stage, cost in found["passes"].items():
            seconds = (cost["model_flops"] / 0.25 + cost["own_flops"] / OWN_UTILISATION) / CARDS[name].flops
            assert card["hours"][stage] == pytest.approx(seconds / 3600)
        assert card["together"] == pytest.approx(sum(card["hours"].values()))
        assert card["usable_bytes"] == USABLE * CARDS[name].memory * 2**30
    assert found["passes"]["sketch"]["own_flops"] > 0


def test_ratios_by_hand(recipe, capsys):
    """Two steps of forward selection over four sources: four trainings on a quarter of the rows, three on a half."""
    found = planned(recipe, capsys, "--cards", "H100", "train.steps=6")
    flops, ratios = {stage: cost["flops"] for stage, cost in found["passes"].items()}, found["ratios"]
    choice = flops["meta-training"] + flops["sketch"] + flops["anchors"] + ratios["solver_flops"]
    assert ratios["choice_to_training"] == pytest.approx(choice / flops["final training (at most)"])
    loaded = Recipe.load(recipe)
    corpus, flops = load_corpus(loaded, load_tokenizer(loaded.model)), pass_flops(loaded.model, loaded.sketch)
    rows = [example for source in (*corpus.sources, corpus.train) for example in source.examples]
    training = total(flops.forward, rows) + total(flops.backward, rows)
    one = 6 * 8 / len(rows) * training + total(flops.forward, corpus.validation.examples)
    assert ratios["real_forward_to_choice"] == pytest.approx(7 * one / choice)
    assert ratios["real_ensemble_to_choice"] == pytest.approx(10 * one / choice)


def test_a_pass_that_does_not_fit_says_how_many_rows_do(tmp_path, inputs, capsys, monkeypatch):
    tree = runs.language_tree(inputs, tmp_path / "run")
    recipe = str(runs.write_recipe(tmp_path / "recipe.yaml", tree))
    memory = planned(recipe, capsys, "--cards", "H100")["memory"]["training"]
    fixed = memory["weights"] + memory["gradients"] + memory["optimiser"]
    for room, rows in ((fixed - 1, 0), (fixed + 2.5 * memory["row"], 2), (fixed + 8.5 * memory["row"], 8)):
        small = CARDS["H100"]._replace(memory=room / USABLE / 2**30)
        monkeypatch.setitem(CARDS, "H100", small)
        card = planned(recipe, capsys, "--cards", "H100")["cards"]["H100"]
        assert card["training"] == {"rows": rows, "fits": rows == 8}
        assert main(["plan", recipe, "--cards", "H100"]) == 0
        said = {0: "does not fit", 2: "2 of 8 rows fit", 8: "fits"}[rows]
        assert said in capsys.readouterr().out


def test_the_plan_says_what_the_recipe_made_of_the_memory(tmp_path, inputs, capsys):
    tree = runs.lora_tree(inputs, tmp_path / "run", model={"dtype": "bfloat16"})
    recipe = str(runs.write_recipe(tmp_path / "recipe.yaml", tree))
    plain = planned(recipe, capsys, "--cards", "H100")["memory"]
    options = ["train.packing=true", "train.packed_tokens=40", "model.gradient_checkpointing=true"]
    options += ["model.device_map=auto", "--cards", "H100"]
    found = planned(recipe, capsys, *options)["memory"]["training"]
    longest = plain["training"]["tokens"]
    assert longest < 40 and (found["rows"], found["tokens"]) == (1, 40)
    assert (
        planned(recipe, capsys, *options[1:], "train.packing=true", "train.packed_tokens=2048")["memory"]["training"][
            "tokens"
        ]
        == 8 * longest
    )
    assert main(["plan", recipe, *options]) == 0
    out = capsys.readouterr().out
    texts = "one row of 40 tokens", "adapters are float32", "adapter_dtype=bfloat16", "every layer's input"
    for text in (*texts, "sum over all GPUs"):
        assert text in out


def test_rows_that_name_no_source_are_told_of(tmp_path, inputs, capsys):
    rows = [{"prompt": "a=", "completion": "a", "task": task} for task in ("one", "two", None, None)]
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = runs.language_tree(inputs, tmp_path / "run")
    tree["data"]["sources"] = {"path": str(tmp_path / "all.jsonl"), "by": "task", "unassigned": "drop"}
    assert main(["plan", str(runs.write_recipe(tmp_path / "recipe.yaml", tree)), "--cards", "H100"]) == 0
    assert "rows that name no source, left out: 2" in capsys.readouterr().out


def test_an_adapter_that_is_given_costs_no_meta_training(tmp_path, inputs, capsys):
    made = Recipe.build(runs.lora_tree(inputs, tmp_path / "run", model={"rank": 5}))
    save_model(load_model(made.model, 0, "cpu"), tmp_path / "adapter")
    recipe = str(runs.write_recipe(tmp_path / "recipe.yaml", runs.lora_tree(inputs, tmp_path / "run")))
    found = planned(recipe, capsys, f"meta.adapter={tmp_path / 'adapter'}")
    assert found["passes"]["meta-training"]["backward_rows"] == 0 < found["passes"]["sketch"]["backward_rows"]
    assert found["model"]["trained_parameters"] == 5 * (16 + 48 + 16 + 64)


def test_mistakes(recipe, capsys):
    assert main(["plan", recipe, "--cards", "GTX960"]) == 2
    assert "A100-40" in capsys.readouterr().err
    for share in ("0", "1.5", "nan"):
        assert main(["plan", recipe, "--utilisation", share]) == 2
    assert main(["plan", recipe, "--cards", "H100", "select.keep=9"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4


@pytest.fixture
def llama(tmp_path: Path):
    """Llama-3-8B with so many of its blocks, in bfloat16."""

    def written(blocks: int) -> ModelRecipe:
        shape = {"vocab_size": 128_256, "hidden_size": 4096, "intermediate_size": 14_336, "num_key_value_heads": 8}
        config = LlamaConfig(**shape, num_attention_heads=32, num_hidden_layers=blocks, dtype="bfloat16")
        config.save_pretrained(tmp_path / str(blocks))
        return ModelRecipe(name=str(tmp_path / str(blocks)), rank=16)

    return written


def test_llama_3_8b_beside_what_was_measured(llama, monkeypatch):
    """On an H200 (benchmarks/results/gpu_check.json): 16 rows of 512 tokens, LoRA r = 16 in bfloat16, d = 128.

    The plain pass took 71.9 GiB, with its own loss at all positions in float32; the sketch pass 64.3 GiB. Here both are
    estimated at 69 GiB: 4 % below, 7 % above. A block is like another, so one and two of them tell 32.
    """
    from gradex_fast import footprint as module

    def in_bfloat16(recipe: ModelRecipe) -> torch.nn.Module:
        model = outline(recipe)
        for parameter in trainable(model).values():
            parameter.data = parameter.data.to(torch.bfloat16)
        return model

    outline = module.load_outline
    monkeypatch.setattr(module, "load_outline", in_bfloat16)
    footprint.cache_clear()
    found = json.loads((Path(__file__).parents[1] / "benchmarks/results/gpu_check.json").read_text())
    rows = [row for step in found["steps"] for row in step["rows"] if "plain GiB" in row["figures"]]
    measured = rows[0]["figures"]
    one, two = (footprint(llama(blocks), SketchRecipe(dim=128)) for blocks in (1, 2))
    for part, name, gap in (("training", "plain GiB", -0.04), ("sketching", "sketch GiB", 0.07)):
        each = [f.weights + 16 * f.activations(getattr(f, part), 512, 511) for f in (one, two)]
        whole = each[0] + 31 * (each[1] - each[0])
        assert whole / 2**30 / measured[name] - 1 == pytest.approx(gap, abs=0.015)
    trained = one.trained + 31 * (two.trained - one.trained)
    assert trained == 41_943_040
    footprint.cache_clear()


def test_llama_3_8b_at_the_assumed_share_of_the_peak(llama):
    """The same H200: 637 ms for the plain pass and 673 ms for the sketch pass. The share is where Llama's was found
    (0.40), so that its plain pass is no test; the sketch pass is: 658 ms and 58 ms of its own are 6 % too many."""
    one, two = (pass_flops(llama(blocks), SketchRecipe(dim=128)) for blocks in (1, 2))
    shape = features([(512, 511)])[0]

    def seconds(*parts: str, share: float) -> float:
        each = [16 * sum(shape @ getattr(f, part) for part in parts) for f in (one, two)]
        return (each[0] + 31 * (each[1] - each[0])) / share / CARDS["H200"].flops

    assert seconds("forward", "backward", share=UTILISATION) / 0.637 - 1 == pytest.approx(0.01, abs=0.015)
    sketch = seconds("forward", "slopes", share=UTILISATION) + seconds("sketch", share=OWN_UTILISATION)
    assert sketch / 0.673 - 1 == pytest.approx(0.04, abs=0.015)


def test_a_model_that_the_meta_device_cannot_run_has_weights_all_the_same(tmp_path, inputs, capsys, monkeypatch):
    from gradex_fast import footprint as module

    def broken(*_):
        raise RuntimeError("no such operation on meta")

    monkeypatch.setattr(module, "logits", broken)
    footprint.cache_clear()
    recipe = str(runs.write_recipe(tmp_path / "recipe.yaml", runs.language_tree(inputs, tmp_path / "run")))
    found = planned(recipe, capsys, "--cards", "H100")
    assert found["memory"]["training"]["weights"] > 0 and found["memory"]["training"]["row"] is None
    assert found["cards"]["H100"]["training"] == {"rows": None, "fits": None}
    assert main(["plan", recipe, "--cards", "H100"]) == 0
    assert "not known" in capsys.readouterr().out
    footprint.cache_clear()


def test_attention_that_is_not_eager_keeps_no_scores(inputs):
    recipe = ModelRecipe(name=str(inputs / "gpt2"), adapter="full")
    fast, eager = (footprint(recipe.model_copy(update={"attention": each}), PLAIN) for each in (None, "eager"))
    assert fast.training[2] == 0 < eager.training[2]
    assert (fast.training[[0, 1, 3]] == eager.training[[0, 1, 3]]).all()
    assert math.isclose(
        eager.activations(eager.training, 20, 5) - fast.activations(fast.training, 20, 5), eager.training[2] * 400
    )
    assert set(MODELS) >= {"gpt2", "llama", "bert"}
