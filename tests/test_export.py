"""`gradex-fast export`: other tools' own loaders give back the very rows that the run's final model was trained on."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest
import runs
import torch
import yaml
from corpora import language_model
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel
from trl import get_quantization_config

from gradex_fast import pipeline
from gradex_fast.cli import main
from gradex_fast.data.files import rows_of
from gradex_fast.data.prompts import ALPACA, ALPACA_INPUT
from gradex_fast.types import Example

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
NAN = float("nan")
EVIL = 'a "quoted", \\ back-slashed\nline,\t{brace} {{m}} %s — ü 漢 🙂   \x00'
HOSTILE = [
    {"prompt": EVIL, "completion": "b\n", "x": NAN, "source": "mine"},
    {"prompt": "", "completion": "2024-01-01", "x": 1.5},
    {"prompt": "007=", "completion": "007", "meta": {"deep": [{"n": 1}, {"t": "\ud800"}]}},
    {"prompt": "long=", "completion": "cut " * 100},
]
DATES = [{"prompt": "2024-01-01T00:00:00", "completion": f"2024-01-0{day}"} for day in range(1, 5)]
ALPACAS = [{"instruction": "say", "input": "hi\n{x}", "output": "hi"}, {"instruction": "go", "output": "1"}]
TEXTS = [{"text": "null"}, {"text": "plain, no prompt"}, {"text": "x" * 60}]
LOST = {"prompt": "no token of the completion is left" * 10, "completion": "c"}
SPOKEN = [{"role": "system", "content": "s"}, {"role": "user", "content": EVIL}, {"role": "assistant", "content": "01"}]
CHATS = [{"messages": SPOKEN}, {"messages": [*SPOKEN[1:], {"role": "user", "content": "2"}, SPOKEN[2]]}]
SHARED = [{"conversations": [{"from": "human", "value": EVIL}, {"from": "gpt", "value": "01"}]}]
SAID = [{"prompt": SPOKEN[:2], "completion": SPOKEN[2:]}, {"prompt": SPOKEN[1:], "completion": [*SPOKEN[1:]]}]
ASKED = [
    {"question": "a{b}", "right": True, "options": ["x", "\n"]},
    {"question": "?", "right": False, "options": [""]},
]
AS_ASKED = {
    "prompt_template": "Q: {question} {options[0]}\nA:",
    "completion_template": " {right}",
    "words": {"right": {"true": "yes", "false": "no"}},
}
CALL = [{"role": "assistant", "content": "c", "tool_calls": [{"name": "f", "arguments": {"a": 1}}]}]
CALLS = [{"messages": SPOKEN[:2] + CALL}, {"messages": SPOKEN}]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}:{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<eos>"
    "{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
SOURCES = {"a/b, c": [*HOSTILE, LOST], "dates": DATES, "alpaca": ALPACAS, "texts": TEXTS, "asked": ASKED}
LENGTH = 240
FAST = {"train": {"steps": 1, "batch_size": 4, "checkpoints": 0}, "meta": "none"}


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def write(folder: Path, sources: dict[str, list[Any]]) -> list[dict[str, str]]:
    files = [f"{number}.jsonl" for number in range(len(sources))]
    for file, rows in zip(files, sources.values(), strict=True):
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"asked": AS_ASKED}
    return [{"path": file, "name": name, **options.get(name, {})} for file, name in zip(files, sources, strict=True)]


def finished(inputs: Path, folder: Path, sources: dict[str, list[Any]], keep: int, **sections: Any) -> pipeline.Run:
    """A run over these sources and one that equals the validation rows but for one; the first `keep` are chosen."""
    held = [json.loads(line) for line in (inputs / "validation.jsonl").read_text().splitlines()]
    turns = [{"role": "user", "content": "o="}, {"role": "assistant", "content": "o"}]
    own = {"prompt": "o=", "completion": "o"}
    if "messages" in held[0]:
        own = {"messages": turns}
    elif isinstance(held[0]["prompt"], list):
        own = {"prompt": turns[:1], "completion": turns[1:]}
    listed = write(folder, {**sources, "other": [*held, own]})
    tree = runs.language_tree(inputs, folder / "run", **FAST)
    tree["data"] |= {"folder": str(folder), "sources": listed, "max_length": LENGTH, "on_overlap": "drop"}
    tree["data"]["target"] = {part: {"path": str(inputs / f"{part}.jsonl")} for part in ("train", "validation")}
    choice = {"include": list(sources)[:keep], "exclude": ["other", *list(sources)[keep:]]} if keep else {}
    return runs.run(runs.merged(tree, select={**choice, "subsets": 4}, **sections), until="finetune")


@pytest.fixture(scope="module")
def plain(inputs: Path, tmp_path_factory) -> Path:
    """The inputs of `runs` with a model of more positions."""
    return write_model(shutil.copytree(inputs, tmp_path_factory.mktemp("plain") / "inputs"))


@pytest.fixture(scope="module")
def speaking(plain: Path, tmp_path_factory) -> Path:
    """The same with a chat template, and target rows that are conversations."""
    folder = write_model(shutil.copytree(plain, tmp_path_factory.mktemp("speaking") / "inputs"), TEMPLATE)
    for part, text in (("train", "t"), ("validation", "v")):
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        (folder / f"{part}.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    return folder


def write_model(folder: Path, template: str | None = None) -> Path:
    tokenizer = language_model()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder / "gpt2")
    small = {"n_positions": LENGTH, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 1, "eos_token_id": 1}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), pad_token_id=0, **small)).save_pretrained(folder / "gpt2")
    return folder


@pytest.fixture(scope="module")
def mixed(plain: Path, tmp_path_factory) -> pipeline.Run:
    return finished(plain, tmp_path_factory.mktemp("mixed"), SOURCES, 5)


@pytest.fixture(scope="module")
def chats(speaking: Path, tmp_path_factory) -> pipeline.Run:
    return finished(speaking, tmp_path_factory.mktemp("chats"), {"one": CHATS, "two": SHARED, "calls": CALLS}, 2)


def exported(run: pipeline.Run, to: str, out: Path, *options: str) -> tuple[Path, dict[str, Any]]:
    assert main(["export", str(run.path), "--to", to, "--out", str(out), "--quiet", *options]) == 0
    return out, json.loads((out / "export.json").read_text())


def trained_on(run: pipeline.Run) -> list[Example]:
    return run.examples(run.selection.chosen)


def parts(run: pipeline.Run) -> dict[str, list[Any]]:
    """The rows of every chosen source, and of the target's own, as they were read."""
    sources = [*(run.corpus.sources[i] for i in run.selection.chosen), run.corpus.train]
    return {source.name: [example.row for example in source.examples] for source in sources}


def turns(run: pipeline.Run) -> dict[str, list[Any]]:
    """The conversations of every part, by hand as role and content."""
    names = {"human": "user", "gpt": "assistant"}
    shared = {name: [row.get("conversations") for row in rows] for name, rows in parts(run).items()}
    return {
        name: [
            row["messages"] if said is None else [{"role": names[t["from"]], "content": t["value"]} for t in said]
            for row, said in zip(rows, shared[name], strict=True)
        ]
        for name, rows in parts(run).items()
    }


def prompted(run: pipeline.Run) -> list[dict[str, str]]:
    """All rows by hand as prompt and completion."""
    found = []
    for row in (row for rows in parts(run).values() for row in rows):
        if "question" in row:
            prompt = f"Q: {row['question']} {row['options'][0]}\nA:"
            found.append({"prompt": prompt, "completion": " yes" if row["right"] else " no"})
        elif "text" in row:
            found.append({"prompt": "", "completion": row["text"]})
        elif "instruction" in row:
            template = ALPACA_INPUT if row.get("input") else ALPACA
            found.append({"prompt": template.format(**row), "completion": row["output"]})
        else:
            found.append({"prompt": row["prompt"], "completion": row["completion"]})
    return found


def same(found: list[Any], expected: list[Any]) -> bool:
    """NaN is itself; the order of a row's columns does not matter."""
    return [json.dumps(row, sort_keys=True) for row in found] == [json.dumps(row, sort_keys=True) for row in expected]


def of_trl(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, datasets.Dataset]:
    """What `trl sft --config` reads: its arguments and its training rows."""
    from trl import get_dataset
    from trl.scripts.sft import make_parser

    monkeypatch.chdir(folder)
    arguments = ["--config", "mixture.trl.yaml", "--use_cpu", "--report_to", "none"]
    found = make_parser().parse_args_and_config(arguments)
    return found, get_dataset(found[3])["train"]


def of_trl_trainer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], list[int]]]:
    """Tokens and labels of every row as trl's trainer prepares it for a model."""
    from trl import SFTTrainer, get_peft_config

    (_, training, model, _), rows = of_trl(folder, monkeypatch)
    training.model_init_kwargs = {"dtype": model.dtype}
    trainer = SFTTrainer(model.model_name_or_path, training, train_dataset=rows, peft_config=get_peft_config(model))
    batches = (trainer.data_collator([row]) for row in trainer.train_dataset)
    return [(batch["input_ids"][0].tolist(), batch["labels"][0].tolist()) for batch in batches]


def tokens(run: pipeline.Run) -> list[tuple[list[int], list[int]]]:
    return [(example.input_ids.tolist(), example.labels.tolist()) for example in trained_on(run)]


def unsupervised_start(rows: list[tuple[list[int], list[int]]]) -> list[tuple[list[int], list[int]]]:
    """Nothing predicts the first token, whatever its label says."""
    return [(ids, [-100, *labels[1:]]) for ids, labels in rows]


def test_trl_trains_on_the_tokens_that_the_run_trained_on(mixed, tmp_path, monkeypatch):
    folder, made = exported(mixed, "trl", tmp_path / "out")
    assert unsupervised_start(of_trl_trainer(folder, monkeypatch)) == tokens(mixed)
    assert made["rows"] == len(trained_on(mixed)) == 19
    assert made["notes"] == ["rows of more than 240 tokens: 1, which the run cut at the end; here they are whole"]


def test_trl_reads_whole_sources_and_every_character(mixed, tmp_path, monkeypatch):
    folder, _ = exported(mixed, "trl", tmp_path / "out")
    (_, training, model, mixture), rows = of_trl(folder, monkeypatch)
    assert rows.to_list() == prompted(mixed)
    assert all(entry.fraction is None for entry in mixture.datasets)
    recipe = mixed.recipe
    assert (training.learning_rate, training.max_steps) == (recipe.train.learning_rate, recipe.train.steps)
    assert (training.max_length, training.packing, model.use_peft) == (LENGTH, False, False)


def test_trl_with_conversations(chats, tmp_path, monkeypatch):
    folder, _ = exported(chats, "trl", tmp_path / "out")
    _, rows = of_trl(folder, monkeypatch)
    assert rows["messages"] == [messages for each in turns(chats).values() for messages in each]
    assert unsupervised_start(of_trl_trainer(folder, monkeypatch)) == tokens(chats)


def test_trl_keeps_messages_that_have_different_keys(speaking, tmp_path, monkeypatch):
    run = finished(speaking, tmp_path, {"calls": CALLS, "one": CHATS}, 2)
    folder, _ = exported(run, "trl", tmp_path / "out")
    _, rows = of_trl(folder, monkeypatch)
    assert rows["messages"] == [row["messages"] for rows in parts(run).values() for row in rows]


@pytest.mark.parametrize("options", [{}, {"assistant_only_loss": True}, {"completion_only_loss": False}])
def test_trl_with_conversations_in_prompt_and_completion(speaking, tmp_path, monkeypatch, capsys, options):
    inputs = shutil.copytree(speaking, tmp_path / "inputs")
    for part in ("train", "validation"):
        row = json.loads((inputs / f"{part}.jsonl").read_text())["messages"]
        (inputs / f"{part}.jsonl").write_text(json.dumps({"prompt": row[:1], "completion": row[1:]}) + "\n")
    run = finished(inputs, tmp_path, {"said": SAID}, 1, data=options)
    folder, _ = exported(run, "trl", tmp_path / "out")
    assert unsupervised_start(of_trl_trainer(folder, monkeypatch)) == tokens(run)
    for tool in ("axolotl", "llamafactory"):
        assert main(["export", str(run.path), "--to", tool]) == 2
        assert "conversations in prompt and completion are not written for" in capsys.readouterr().err


def test_the_loss_on_all_tokens_and_rows_cut_at_their_start(plain, tmp_path, monkeypatch):
    data = {"completion_only_loss": False, "truncation_side": "left"}
    run = finished(plain, tmp_path, {"rows": HOSTILE, "alpaca": ALPACAS}, 2, data=data)
    folder, made = exported(run, "trl", tmp_path / "trl")
    assert unsupervised_start(of_trl_trainer(folder, monkeypatch)) == tokens(run)
    assert made["notes"] == ["rows of more than 240 tokens: 1, which the run cut at the start; here they are whole"]
    for tool, option in (("axolotl", "train_on_inputs"), ("llamafactory", "train_on_prompt")):
        folder, made = exported(run, tool, tmp_path / tool)
        assert yaml.safe_load((folder / made["config"]).read_text())[option] is True
        assert "cuts no row at its start" in made["notes"][1]


def test_conversations_with_the_loss_on_all_tokens(speaking, tmp_path, monkeypatch, capsys):
    run = finished(speaking, tmp_path, {"one": CHATS}, 1, data={"assistant_only_loss": False})
    folder, _ = exported(run, "trl", tmp_path / "trl")
    assert unsupervised_start(of_trl_trainer(folder, monkeypatch)) == tokens(run)
    folder, made = exported(run, "llamafactory", tmp_path / "llamafactory")
    assert yaml.safe_load((folder / made["config"]).read_text())["train_on_prompt"] is True
    folder, made = exported(run, "axolotl", tmp_path / "axolotl")
    config = yaml.safe_load((folder / made["config"]).read_text())
    assert [entry["roles_to_train"] for entry in config["datasets"]] == [
        ["assistant", "system", "user"],
        ["assistant", "user"],
    ]
    assert config["train_on_inputs"] is False and "what every role says" in made["notes"][0]


def test_a_quantised_base_and_adapters_like_given_ones(plain, tmp_path, monkeypatch, capsys):
    """Fields of axolotl 0.19.0's LoraConfig and of LLaMA-Factory 0.9.5's QuantizationArguments."""
    pytest.importorskip("bitsandbytes", reason="the extra `quantized` is not installed")
    like = LoraConfig(r=3, lora_alpha=5, target_modules=["c_attn", "c_fc"], task_type="CAUSAL_LM")
    get_peft_model(GPT2LMHeadModel.from_pretrained(plain / "gpt2"), like).save_pretrained(tmp_path / "like")
    model = {"adapter": "lora", "quantization": "4bit", "dtype": "auto", "gradient_checkpointing": True}
    model |= {"like": str(tmp_path / "like"), "adapter_dtype": "bfloat16"}
    run = finished(plain, tmp_path, {"texts": TEXTS}, 1, model=model, train={**FAST["train"], "packing": True})
    folder, made = exported(run, "trl", tmp_path / "trl")
    (_, training, found, _), _ = of_trl(folder, monkeypatch)
    assert (found.lora_r, found.lora_alpha, found.lora_target_modules) == (3, 5, ["c_attn", "c_fc"])
    bits = get_quantization_config(found)
    assert (bits.load_in_4bit, bits.bnb_4bit_quant_type, bits.bnb_4bit_use_double_quant) == (True, "nf4", True)
    assert bits.bnb_4bit_compute_dtype == torch.float32
    assert training.gradient_checkpointing is True and "train.packing is left off" in made["notes"][0]
    assert "model.adapter_dtype=bfloat16 is left off" in made["notes"][1]
    folder, made = exported(run, "axolotl", tmp_path / "axolotl")
    config = yaml.safe_load((folder / made["config"]).read_text())
    assert (config["adapter"], config["load_in_4bit"], config["lora_r"]) == ("qlora", True, 3)
    assert (config["lora_target_modules"], config["gradient_checkpointing"]) == (["c_attn", "c_fc"], True)
    folder, made = exported(run, "llamafactory", tmp_path / "llamafactory")
    config = yaml.safe_load((folder / made["config"]).read_text())
    assert (config["quantization_bit"], config["double_quantization"], config["lora_alpha"]) == (4, True, 5)
    assert config["lora_target"] == "c_attn,c_fc" and "disable_gradient_checkpointing" not in config
    written = json.loads((tmp_path / "like" / "adapter_config.json").read_text())
    (tmp_path / "like" / "adapter_config.json").write_text(json.dumps({**written, "use_dora": True}))
    assert main(["export", str(run.path), "--to", "trl", "--out", str(tmp_path / "dora")]) == 2
    assert "is no plain LoRA (use_dora)" in capsys.readouterr().err


def test_trl_with_text_and_an_adapter(plain, tmp_path, monkeypatch):
    lora = {"adapter": "lora", "rank": 2, "alpha": 4, "targets": ["c_attn"]}
    (tmp_path / "train.jsonl").write_text(json.dumps({"text": "own"}) + "\n")
    run = finished(plain, tmp_path, {"texts": TEXTS}, 1, model=lora)
    assert (
        main(["export", str(run.path), "--to", "trl", "--out", str(tmp_path / "mixed")]) == 0
    )  # its target has prompts
    (_, _, model, _), rows = of_trl(tmp_path / "mixed", monkeypatch)
    assert rows.column_names == ["prompt", "completion"]
    assert (model.lora_r, model.lora_alpha, model.lora_target_modules) == (2, 4, "c_attn")


def test_axolotl(mixed, tmp_path, monkeypatch):
    """Against the fields of SFTDataset and UserDefinedPrompterType and the loader of local files in axolotl 0.19.0.

    It needs transformers 5.16.1 and datasets 4.8.4 and does not install beside ours.
    """
    folder, made = exported(mixed, "axolotl", tmp_path / "out")
    monkeypatch.chdir(folder)
    config, found = yaml.safe_load((folder / "mixture.axolotl.yaml").read_text()), {}
    for entry, piece in zip(config["datasets"], made["pieces"], strict=True):
        assert entry.keys() == {"path", "ds_type", "type"}
        found[piece["source"]] = datasets.load_dataset(entry["ds_type"], data_files=entry["path"], split="train")
    types = dict(zip(found, (entry["type"] for entry in config["datasets"]), strict=True))
    named = {"field_instruction": "prompt", "field_output": "completion"}
    formats = {"format": "{instruction}", "no_input_format": "{instruction}"}
    assert types["dates"] == types["target-train"] == {**named, **formats}
    assert (types["alpaca"], types["texts"]) == ("alpaca", "completion")
    assert found["asked"].to_list() == [row for row in prompted(mixed) if row["prompt"].startswith("Q: ")]
    expected = parts(mixed)
    assert found["alpaca"].to_list() == [{"input": "", **row} for row in expected["alpaca"]]
    assert found["texts"].to_list() == expected["texts"]
    for name in ("a/b, c", "dates", "target-train"):
        assert found[name].to_list() == [{k: row[k] for k in ("prompt", "completion")} for row in expected[name]]
    assert (config["sequence_len"], config["excess_length_strategy"]) == (LENGTH, "truncate")
    assert config["max_steps"] == 1 and config["sample_packing"] is False


def test_axolotl_with_conversations(chats, tmp_path, monkeypatch):
    """`type: chat_template` of axolotl 0.19.0: field_messages, roles_to_train."""
    folder, _ = exported(chats, "axolotl", tmp_path / "out")
    config = yaml.safe_load((folder / "mixture.axolotl.yaml").read_text())
    monkeypatch.chdir(folder)
    for entry, rows in zip(config["datasets"], turns(chats).values(), strict=True):
        assert (entry["type"], entry["field_messages"]) == ("chat_template", "messages")
        assert entry["roles_to_train"] == ["assistant"]
        assert datasets.load_dataset("parquet", data_files=entry["path"], split="train")["messages"][:] == rows


def of_llamafactory(folder: Path) -> tuple[dict[str, Any], list[tuple[dict[str, Any], list[Any]]]]:
    """As data/parser.py and data/loader.py of LLaMA-Factory 0.9.5 read them: each set's attributes and rows."""
    config = yaml.safe_load((folder / "mixture.llamafactory.yaml").read_text())
    info = json.loads((folder / config["dataset_dir"] / "dataset_info.json").read_text())
    sets = [info[name.strip()] for name in config["dataset"].split(",")]
    files = [str(folder / config["dataset_dir"] / each["file_name"]) for each in sets]
    read = [datasets.load_dataset("parquet", data_files=[file], split="train").to_list() for file in files]
    return config, list(zip(sets, read, strict=True))


def test_llamafactory(mixed, tmp_path):
    """Against LLaMA-Factory 0.9.5, which needs transformers 5.6 or older and does not install beside ours.

    Its template `empty` adds no end of sequence, so the completions have it.
    """
    folder, _ = exported(mixed, "llamafactory", tmp_path / "out")
    config, sets = of_llamafactory(folder)
    assert (config["stage"], config["template"], config["cutoff_len"]) == ("sft", "empty", LENGTH)
    for each, _ in sets:
        assert each["formatting"] == "alpaca" and each["columns"] == {"prompt": "prompt", "response": "completion"}
    expected = [{**row, "completion": row["completion"] + "<eos>"} for row in prompted(mixed)]
    assert [row for _, rows in sets for row in rows] == expected
    tokenizer = AutoTokenizer.from_pretrained(config["model_name_or_path"])
    ids = [
        tokenizer(row["prompt"] + row["completion"], truncation=True, max_length=LENGTH)["input_ids"]
        for row in expected
    ]
    assert ids == [ids for ids, _ in tokens(mixed)]


def test_llamafactory_with_conversations(chats, tmp_path, capsys):
    """The tags of data/parser.py in LLaMA-Factory 0.9.5."""
    folder, _ = exported(chats, "llamafactory", tmp_path / "out")
    config, sets = of_llamafactory(folder)
    assert "template" not in config
    for each, _ in sets:
        assert each["formatting"] == "sharegpt" and each["columns"] == {"messages": "messages"}
        assert each["tags"]["role_tag"] == "role" and each["tags"]["content_tag"] == "content"
    assert [[row["messages"] for row in rows] for _, rows in sets] == list(turns(chats).values())


def test_llamafactory_refuses_what_it_would_pass_over(speaking, tmp_path, capsys):
    run = finished(speaking, tmp_path, {"calls": CALLS}, 1)
    assert main(["export", str(run.path), "--to", "llamafactory"]) == 2
    assert "calls/0: LLaMA-Factory takes role and content alone" in capsys.readouterr().err
    assert not (run.path / "exports").exists() or not any((run.path / "exports").iterdir())


def test_jsonl_keeps_every_column(mixed, tmp_path):
    folder, made = exported(mixed, "jsonl", tmp_path / "out")
    for piece, (name, rows) in zip(made["pieces"], parts(mixed).items(), strict=True):
        assert piece["source"] == name
        assert same([row.values for row in rows_of(folder / piece["file"], "file")], rows)
    whole = [row.values for row in rows_of(folder / "mixture.jsonl", "mixture")]
    labelled = [{**row, "source": name} for name, rows in parts(mixed).items() for row in rows]
    labelled[0]["_source"] = "mine"
    assert same(whole, labelled)
    assert str(whole[0]["x"]) == "nan"


def test_a_data_set_keeps_every_column(mixed, tmp_path):
    folder, made = exported(mixed, "hf-dataset", tmp_path / "out")
    found = datasets.load_from_disk(folder / "dataset").to_list()
    assert Counter(row["source"] for row in found) == {name: len(rows) for name, rows in parts(mixed).items()}
    assert made["json_columns"] == ["meta"]  # half of a surrogate pair is no text
    for row, expected in zip(found, (row for rows in parts(mixed).values() for row in rows), strict=True):
        row = {key: value for key, value in row.items() if value is not None}
        row |= {"meta": json.loads(row["meta"])} if "meta" in row else {}
        row["source"] = row.pop("_source", None)
        assert same([{k: v for k, v in row.items() if v is not None}], [expected])


def test_clusters_are_exported_as_the_run_cut_them(plain, tmp_path):
    run = finished(plain, tmp_path, SOURCES, 0, clusters={"count": 3})
    folder, made = exported(run, "axolotl", tmp_path / "out")
    expected = parts(run)
    rows = Counter()
    for piece in made["pieces"]:
        rows[piece["source"]] += piece["rows"]
    assert rows == {name: len(found) for name, found in expected.items()}
    assert any(name.startswith("cluster ") for name in rows)
    folder, _ = exported(run, "jsonl", tmp_path / "lines")
    found = [row.values for row in rows_of(folder / "mixture.jsonl", "mixture")]
    assert Counter(row["source"] for row in found) == rows


def test_only_what_the_final_model_saw(mixed, tmp_path):
    """Not the rows equal to validation rows, nor the one without a supervised token, nor what was not chosen."""
    folder, _ = exported(mixed, "jsonl", tmp_path / "out")
    text = (folder / "mixture.jsonl").read_text()
    assert LOST["prompt"] not in text and '"o="' not in text
    assert (mixed.path / "selected.jsonl").read_text().count("\n") == text.count("\n")


def test_changed_rows_are_refused(plain, tmp_path, capsys):
    run = finished(plain, tmp_path, {"dates": DATES}, 1)
    (tmp_path / "0.jsonl").write_text(json.dumps({"prompt": "new", "completion": "row"}) + "\n")
    assert main(["export", str(run.path), "--to", "jsonl"]) == 2
    assert "are not those of the run" in capsys.readouterr().err
    write(tmp_path, {"dates": DATES})
    recipe = runs.write_recipe(tmp_path / "recipe.yaml", runs.merged(json.loads(run.recipe.model_dump_json())))
    assert main(["export", str(recipe), "--to", "jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(run.path / "exports" / "jsonl")
    (run.path / "selection.json").unlink()
    assert main(["export", str(run.path), "--to", "jsonl", "--overwrite"]) == 2
    assert "has no selection yet" in capsys.readouterr().err


def test_an_export_is_not_written_over(mixed, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["export", str(mixed.path), "--to", "jsonl", "--out", str(out)]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "--overwrite" in capsys.readouterr().err
    before = runs.digests(out)
    assert main([*arguments, "--overwrite"]) == 0 and runs.digests(out) == before
    (out / "export.json").unlink()
    assert main([*arguments, "--overwrite"]) == 2
    assert "holds no export" in capsys.readouterr().err


def test_a_classifier_has_no_trainer_there(inputs, tmp_path, capsys):
    run = runs.run(runs.classifier_tree(inputs, tmp_path / "run", **FAST), until="select")
    for tool in ("trl", "axolotl", "llamafactory"):
        assert main(["export", str(run.path), "--to", tool]) == 2
        assert "no fine-tuning of classifiers" in capsys.readouterr().err
    folder, _ = exported(run, "hf-dataset", tmp_path / "out")
    found = datasets.load_from_disk(folder / "dataset").to_list()
    assert same(found, [{**row, "source": name} for name, rows in parts(run).items() for row in rows])


def test_a_tool_has_one_template_for_all_rows(speaking, tmp_path, capsys):
    run = finished(speaking, tmp_path, {"chats": CHATS, "texts": TEXTS}, 2)
    for tool in ("trl", "llamafactory"):
        assert main(["export", str(run.path), "--to", tool]) == 2
        assert "are messages and" in capsys.readouterr().err
    assert main(["export", str(run.path), "--to", "axolotl"]) == 0
