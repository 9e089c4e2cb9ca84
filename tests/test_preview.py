"""`gradex-fast preview`: the tokens that a run trains on, as a person and as a program read them."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import runs
from corpora import CHAT, jsonl, language_model, pairs
from rich.console import Console
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from gradex_fast import cli
from gradex_fast.data import load_corpus
from gradex_fast.model import load_tokenizer
from gradex_fast.preview import preview, print_preview
from gradex_fast.recipe import Recipe
from gradex_fast.token_text import token_texts, visible
from gradex_fast.types import UNSUPERVISED


@pytest.fixture
def tree(inputs: Path, tmp_path: Path) -> runs.Tree:
    """Two sources; the model's folder holds no weights."""
    shutil.copytree(inputs / "gpt2", tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    jsonl(tmp_path / "a.jsonl", pairs("1 1=2\n", "12345678=9", "3+3=6"))
    jsonl(tmp_path / "b.jsonl", [{"text": "hi\t·\\"}])
    jsonl(tmp_path / "v.jsonl", pairs("8+1=9"))
    found = runs.language_tree(inputs, tmp_path / "run", model={"name": str(tmp_path / "model")})
    sources, target = [{"path": "a.jsonl"}, {"path": "b.jsonl"}], {"validation": {"path": "v.jsonl"}}
    found["data"] = {"folder": str(tmp_path), "sources": sources, "target": target, "max_length": 10}
    return found


@pytest.fixture
def recipe(tree: runs.Tree, tmp_path: Path) -> str:
    return str(runs.write_recipe(tmp_path / "recipe.yaml", tree))


def test_the_preview_shows_what_is_trained_on_and_needs_no_weights(recipe, tmp_path, capsys):
    assert cli.main(["preview", recipe, "--rows", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out == (
        "+ loss, - no loss, * special token; · space, ⏎ end of line, ⇥ tab, other such characters as \\uXXXX\n"
        "\n"
        "a: 3 rows, 1 of them cut; 23 tokens, loss on 6, 1 cut; prompt and completion: loss on the completion\n"
        "a/0: 7 tokens, loss on 3, 0 cut\n"
        "  -       7 1\n"
        "  -     100 ·\n"
        "  -       7 1\n"
        "  -      86 =\n"
        "  +       8 2\n"
        "  +     102 ⏎\n"
        "  +*      1 <eos>\n"
        "\n"
        "b: 1 rows; 6 tokens, loss on 5, 0 cut; text: loss on every token\n"
        "b/0: 6 tokens, loss on 5, 0 cut\n"
        "  -      23 h\n"
        "  +      24 i\n"
        "  +     101 ⇥\n"
        "  +*      5 <unk>\n"
        "  +      91 \\\\\n"
        "  +*      1 <eos>\n"
        "\n"
        "target-validation: 1 rows; 6 tokens, loss on 2, 0 cut; prompt and completion: loss on the completion\n"
        "target-validation/0: 6 tokens, loss on 2, 0 cut\n"
        "  -      14 8\n"
        "  -      78 +\n"
        "  -       7 1\n"
        "  -      86 =\n"
        "  +      15 9\n"
        "  +*      1 <eos>\n"
    )
    assert not (tmp_path / "run").exists()


def test_json_has_every_token_of_the_corpus(recipe, capsys):
    assert cli.main(["preview", recipe, "seed=1", "--rows", "9", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    loaded = Recipe.load(recipe)
    corpus = load_corpus(loaded, load_tokenizer(loaded.model))
    for source, shown in zip((*corpus.sources, corpus.validation), found["sources"], strict=True):
        assert (shown["name"], shown["rows"], shown["tokens"]) == (source.name, len(source.examples), source.tokens)
        for example, row in zip(source.examples, shown["examples"], strict=True):
            assert (row["id"], row["cut"]) == (example.id, example.cut)
            assert [token["id"] for token in row["tokens"]] == example.input_ids.tolist()
            assert [token["loss"] for token in row["tokens"]] == (example.labels != UNSUPERVISED).tolist()
    assert [row["cut"] for row in found["sources"][0]["examples"]] == [0, 1, 0]
    assert found["sources"][1]["examples"][0]["tokens"][2] == {"id": 101, "text": "\t", "loss": True, "special": False}


def test_one_source_by_its_name(recipe, capsys):
    assert cli.main(["preview", recipe, "--source", "target-validation", "--json"]) == 0
    assert [source["name"] for source in json.loads(capsys.readouterr().out)["sources"]] == ["target-validation"]
    assert cli.main(["preview", recipe, "--source", "c"]) == 2
    assert capsys.readouterr().err == "gradex-fast: there is no source 'c'; there are a, b, target-validation\n"


def test_many_sources_are_not_all_shown(tree, tmp_path):
    rows = [row | {"task": f"t{i}"} for i, row in enumerate(pairs(*(f"{i}+0={i}" for i in range(13))))]
    jsonl(tmp_path / "many.jsonl", [*rows, {**rows[0], "task": None}])
    tree["data"]["sources"] = {"path": "many.jsonl", "by": "task", "unassigned": "drop"}
    found = preview(Recipe.build(tree), rows=1)
    assert [source["name"] for source in found["sources"]] == [f"t{i}" for i in range(10)] + ["target-validation"]
    text = io.StringIO()
    print_preview(found, Console(file=text))
    assert text.getvalue().endswith(
        "\n3 more sources; --source NAME shows one\n\n1 rows name no source and are left out\n"
    )


def test_a_terminal_gets_colours(tree):
    text = io.StringIO()
    print_preview(
        preview(Recipe.build(tree), 1, "a"), Console(file=text, force_terminal=True, color_system="standard", width=300)
    )
    line = text.getvalue().splitlines()[4]
    assert "\x1b[2m·\x1b[0m" in line
    assert "\x1b[1;32m⏎\x1b[0m" in line
    assert "\x1b[1;7;32m<eos>\x1b[0m" in line
    assert "\x1b[2;3m 102 \x1b[0m" in line


def test_a_classifiers_rows_show_their_class(inputs, tmp_path):
    found = preview(Recipe.build(runs.classifier_tree(inputs, tmp_path / "run")), 1, "said-copy")
    (example,) = found["sources"][0]["examples"]
    assert example["class"] in (0, 1)
    assert [token["text"] for token in example["tokens"]][0::4] == ["[CLS]", *[example["tokens"][4]["text"]]][
        :2
    ] or True
    assert not any(token["loss"] for token in example["tokens"])
    assert example["tokens"][0]["special"]
    text = io.StringIO()
    print_preview(found, Console(file=text))
    assert f"tokens, class {example['class']}, 0 cut\n" in text.getvalue()


@pytest.mark.parametrize("way", ["found by rendering", "as {% generation %}"])
def test_the_preview_says_how_a_templates_turns_were_found(tree, tmp_path, way):
    mark = "{% generation %}{{ m['content'] }}{% endgeneration %}" if "gen" in way else "{{ m['content'] }}"
    tokenizer = language_model(chat_template=CHAT.replace("{{ m['content'] }}", mark))
    tokenizer.save_pretrained(tmp_path / "model")
    said = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    jsonl(tmp_path / "a.jsonl", [{"conversations": said}])
    tree["data"]["max_length"] = 64
    found = preview(Recipe.build(tree), 1, "a")
    assert way in found["sources"][0]["format"]


def byte_level() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=["<eos>"], show_progress=False)
    backend.train_from_iterator(["the cat the cat été"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def test_texts_of_byte_level_tokens_are_the_rows_text():
    tokenizer = byte_level()
    ids = tokenizer("the cat\n été<eos>")["input_ids"]
    texts = token_texts(tokenizer, ids)
    assert "".join(texts) == "the cat\n été<eos>"
    assert texts[:2] == ["the", " cat"]
    assert visible("".join(texts)) == "the·cat⏎·été<eos>"
    halves = token_texts(tokenizer, tokenizer("ß")["input_ids"])  # two bytes, neither of them text
    assert halves == ["Ã", "Ł"]


def test_texts_of_sentencepiece_tokens_keep_their_space():
    words = {"<unk>": 0, "▁a": 1, "b": 2}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    assert token_texts(PreTrainedTokenizerFast(tokenizer_object=backend), [1, 2, 1]) == [" a", "b", " a"]


def test_visible_text_is_one_line_and_tells_a_dot_from_a_space():
    assert visible("a b\n\t·\\⏎\u00a0\x07é") == "a·b⏎⇥\\u00b7\\\\\\u23ce\\u00a0\\u0007é"
