"""Rows become the right tokens, labels, ids, digests and counts."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from corpora import CHAT, characters, decoded, jsonl, language_model, pairs, recipe

from gradex_fast.data import load_corpus
from gradex_fast.data.chat import converse, turns_of
from gradex_fast.data.files import Row
from gradex_fast.errors import GradexError
from gradex_fast.types import UNSUPERVISED, Example

CLASSIFIER = {"task": "sequence-classification", "labels": 3}


def supervised(tokenizer, example: Example) -> str:
    """The text under the loss; checks that every supervised label is its own token."""
    seen = example.labels != UNSUPERVISED
    np.testing.assert_array_equal(example.labels[seen], example.input_ids[seen])
    return decoded(tokenizer, example.input_ids[seen])


def only(tmp_path, rows, tokenizer, **options) -> list[Example]:
    """Examples of a single source of `rows`."""
    corpus = load_corpus(recipe(tmp_path, [jsonl(tmp_path / "a.jsonl", rows)], **options), tokenizer)
    return list(corpus.sources[0].examples)


def test_prompt_is_context_and_completion_with_eos_is_supervised(tmp_path):
    tokenizer = language_model()
    (example,) = only(tmp_path, pairs("2+2=4"), tokenizer)
    assert decoded(tokenizer, example.input_ids) == "2+2=4<eos>"
    assert example.labels[:4].tolist() == [UNSUPERVISED] * 4
    assert supervised(tokenizer, example) == "4<eos>"
    assert example.input_ids.dtype == example.labels.dtype == np.int32


def test_eos_is_supervised_when_it_is_also_the_padding(tmp_path):
    tokenizer = language_model(pad_token="<eos>")
    (example,) = only(tmp_path, pairs("2+2=4"), tokenizer)
    assert example.labels[-1] == tokenizer.eos_token_id == tokenizer.pad_token_id


def test_no_eos_without_one_and_no_second_one_after_the_rows_own(tmp_path):
    bare = characters(pad_token="<pad>")
    (example,) = only(tmp_path, pairs("2+2=4"), bare)
    assert decoded(bare, example.input_ids) == "2+2=4"
    tokenizer = language_model()
    (example,) = only(tmp_path, pairs("2+2=4<eos>"), tokenizer)
    assert decoded(tokenizer, example.input_ids) == "2+2=4<eos>"


@pytest.mark.parametrize("prompt", ["2+2=", "<bos>2+2="])
def test_bos_once_and_only_where_the_tokenizer_adds_it(tmp_path, prompt):
    row = {"prompt": prompt, "completion": "4"}
    tokenizer = language_model(bos=True, bos_token="<bos>")
    (example,) = only(tmp_path, [row], tokenizer)
    assert decoded(tokenizer, example.input_ids) == "<bos>2+2=4<eos>"
    assert supervised(tokenizer, example) == "4<eos>"
    silent = language_model(bos_token="<bos>")
    (example,) = only(tmp_path, [row], silent)
    assert decoded(silent, example.input_ids) == prompt + "4<eos>"


def test_a_closing_special_token_does_not_part_prompt_from_completion(tmp_path):
    tokenizer = language_model(pair=True)
    (example,) = only(tmp_path, pairs("2+2=4"), tokenizer)
    assert decoded(tokenizer, example.input_ids) == "2+2=4<eos>"


def test_plain_text_is_supervised_from_its_second_token_on(tmp_path):
    plain, bos = language_model(), language_model(bos=True, bos_token="<bos>")
    (example,) = only(tmp_path, [{"text": "abc"}], plain)
    assert (decoded(plain, example.input_ids), supervised(plain, example)) == ("abc<eos>", "bc<eos>")
    (example,) = only(tmp_path, [{"text": "abc"}], bos)
    assert (decoded(bos, example.input_ids), supervised(bos, example)) == ("<bos>abc<eos>", "abc<eos>")


def test_alpaca_rows_with_and_without_input(tmp_path):
    tokenizer = language_model()
    rows = [
        {"instruction": "Add {x}.", "input": "1 2", "output": "3"},
        {"instruction": "Hello.", "input": "", "output": "Hi."},
        {"instruction": "Hello.", "input": None, "output": "Ho."},
        {"instruction": "Hello.", "output": "Hum."},
    ]
    examples = only(tmp_path, rows, tokenizer)
    first, *others = [decoded(tokenizer, example.input_ids) for example in examples]
    assert first == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nAdd {x}.\n\n### Input:\n1 2\n\n### Response:\n3<eos>"
    )
    bare = (
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nHello.\n\n### Response:\n"
    )
    assert others == [bare + answer + "<eos>" for answer in ("Hi.", "Ho.", "Hum.")]
    assert [supervised(tokenizer, e) for e in examples] == ["3<eos>", "Hi.<eos>", "Ho.<eos>", "Hum.<eos>"]


def test_messages_supervise_every_assistant_turn_as_the_template_writes_it(tmp_path):
    tokenizer = language_model(bos=True, bos_token="<bos>", chat_template=CHAT)
    said = [("system", "be"), ("user", "hi"), ("assistant", "yo"), ("user", "hi"), ("assistant", "hi")]
    messages = [{"role": role, "content": content} for role, content in said]
    (example,) = only(tmp_path, [{"messages": messages}], tokenizer)
    whole = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    assert example.input_ids.tolist() == list(whole)
    assert supervised(tokenizer, example) == "yo<eos>\nhi<eos>\n"


def test_a_conversation_may_open_with_the_assistant(tmp_path):
    tokenizer = language_model(chat_template=CHAT)
    (example,) = only(tmp_path, [{"messages": [{"role": "assistant", "content": "ab"}]}], tokenizer)
    assert decoded(tokenizer, example.input_ids) == "<bos>assistant:ab<eos>\n"
    assert supervised(tokenizer, example) == "assistant:ab<eos>\n"  # no label on the first token


def test_null_keys_of_messages_never_reach_the_template(monkeypatch):
    tokenizer, seen = language_model(chat_template=CHAT), []
    monkeypatch.setattr(tokenizer, "apply_chat_template", lambda turns, **_: seen.extend(turns) or "text")
    row = Row("here", {"messages": [{"role": "user", "content": "hi", "tool_calls": None}]})
    converse(turns_of(row, "messages"), tokenizer, row.place)
    assert seen == [{"role": "user", "content": "hi"}]


def test_a_generation_prompt_that_the_turn_lacks_is_done_without(tmp_path):
    tokenizer = language_model(chat_template=CHAT.replace("<bos>assistant:{% endif", "<bos>think{% endif"))
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    (example,) = only(tmp_path, [{"messages": messages}], tokenizer)
    assert supervised(tokenizer, example) == "<bos>assistant:yo<eos>\n"


def test_the_recipe_may_name_the_columns(tmp_path):
    tokenizer = language_model()
    rows = [{"prompt": "no", "question": "2+2=", "answer": "4", "completion": "no", "text": "no"}]
    jsonl(tmp_path / "a.jsonl", rows)
    named = [
        {"path": "a.jsonl", "name": "both", "prompt": "question", "completion": "answer"},
        {"path": "a.jsonl", "name": "one", "prompt": "question"},
        {"path": "a.jsonl", "name": "text", "text": "answer"},
    ]
    corpus = load_corpus(recipe(tmp_path, named), tokenizer)
    texts = [decoded(tokenizer, source.examples[0].input_ids) for source in corpus.sources]
    assert texts == ["2+2=4<eos>", "2+2=no<eos>", "4<eos>"]


def test_classifier_rows_single_and_paired(tmp_path):
    tokenizer = characters(pair=True, cls_token="[CLS]", sep_token="[SEP]", pad_token="<pad>")
    rows = [
        {"text": "ab", "text2": "c", "label": 2},
        {"text": "ab", "text2": None, "label": 0},
        {"text": "ab", "text2": "d", "label": 1},
        {"text": "ab", "text2": "", "label": 1},
    ]
    target = {"validation": {"path": jsonl(tmp_path / "v.jsonl", [{"text": "x", "label": 1}])}}
    corpus = load_corpus(
        recipe(tmp_path, [jsonl(tmp_path / "a.jsonl", rows)], target=target, model=CLASSIFIER), tokenizer
    )
    examples = corpus.sources[0].examples
    texts = [decoded(tokenizer, example.input_ids) for example in examples]
    assert texts == ["[CLS]ab[SEP]c[SEP]", "[CLS]ab[SEP]", "[CLS]ab[SEP]d[SEP]", "[CLS]ab[SEP]"]
    assert [example.labels.tolist() for example in examples] == [[2], [0], [1], [1]]
    assert [example.supervised for example in examples] == [1, 1, 1, 1]


def test_a_classifiers_cut_keeps_the_closing_token(tmp_path):
    tokenizer = characters(pair=True, cls_token="[CLS]", sep_token="[SEP]", pad_token="<pad>")
    rows = [{"text": "abcdef", "label": 0}, {"text": "ab", "text_pair": "cdef", "label": 1}, {"text": "a", "label": 1}]
    target = {"validation": {"path": jsonl(tmp_path / "v.jsonl", [{"text": "x", "label": 1}])}}
    options = {"target": target, "model": CLASSIFIER, "max_length": 6}
    corpus = load_corpus(recipe(tmp_path, [jsonl(tmp_path / "a.jsonl", rows)], **options), tokenizer)
    texts = [decoded(tokenizer, example.input_ids) for example in corpus.sources[0].examples]
    assert texts == ["[CLS]abcd[SEP]", "[CLS]a[SEP]cd[SEP]", "[CLS]a[SEP]"]
    assert (corpus.sources[0].truncated, corpus.sources[0].dropped) == (2, 0)


def test_long_rows_are_cut_at_the_right_and_counted_and_hollow_ones_dropped(tmp_path):
    tokenizer = language_model()
    rows = pairs("1+1=2", "11+1=123", "1111111+1=2", "2+2=4")
    jsonl(tmp_path / "a.jsonl", rows)
    corpus = load_corpus(recipe(tmp_path, ["a.jsonl"], max_length=6), tokenizer)
    (source,) = corpus.sources
    texts = [decoded(tokenizer, example.input_ids) for example in source.examples]
    assert texts == ["1+1=2<eos>", "11+1=1", "2+2=4<eos>"]
    assert (source.truncated, source.dropped, source.tokens) == (2, 1, 18)
    assert [example.id for example in source.examples] == ["a/0", "a/1", "a/3"]


def test_a_row_of_exactly_max_length_is_not_cut(tmp_path):
    corpus = load_corpus(
        recipe(tmp_path, [jsonl(tmp_path / "a.jsonl", pairs("2+2=4"))], max_length=6), language_model()
    )
    assert corpus.sources[0].truncated == 0


def test_more_rows_than_one_batch_keep_their_order(tmp_path):
    tokenizer = language_model()
    examples = only(tmp_path, pairs(*(f"{i}+0={i}" for i in range(2500))), tokenizer)
    assert [supervised(tokenizer, example) for example in examples] == [f"{i}<eos>" for i in range(2500)]


def test_ids_digests_and_raw_rows(tmp_path):
    row = {"prompt": "2+2=", "completion": "4", "date": "2020-01-01", "more": {"a": [1, None]}}
    first, second = only(tmp_path, [row, {"prompt": "2+2=4", "completion": ""}], language_model())
    assert (first.id, first.row) == ("a/0", row)
    content = first.input_ids.astype("<i4").tobytes() + first.labels.astype("<i4").tobytes()
    assert first.digest == hashlib.blake2b(content).hexdigest()[:16]
    assert first.input_ids.tolist() == second.input_ids.tolist()
    assert first.digest != second.digest  # the labels differ


def test_the_target_has_three_parts_of_which_two_may_lack(tmp_path):
    tokenizer = language_model()
    source = jsonl(tmp_path / "a.jsonl", pairs("2+2=4"))
    bare = load_corpus(recipe(tmp_path, [source]), tokenizer)
    assert [len(part.examples) for part in (bare.train, bare.validation, bare.test)] == [0, 1, 0]
    (tmp_path / "none.jsonl").write_text("")
    target = {
        "train": {"path": jsonl(tmp_path / "t.jsonl", pairs("3+3=6", "4+4=8"))},
        "validation": {"path": jsonl(tmp_path / "v.jsonl", pairs("1+3=4"))},
        "test": {"path": "none.jsonl"},
    }
    full = load_corpus(recipe(tmp_path, [source], target=target), tokenizer)
    assert [example.id for example in full.train.examples] == ["target-train/0", "target-train/1"]
    assert [example.id for example in full.validation.examples] == ["target-validation/0"]
    assert full.test.examples == ()


def test_groups_come_in_order_of_first_appearance_with_rows_counted_in_each(tmp_path):
    tasks = ["b", "a", "b", 7, "a", "b"]
    rows = [row | {"task": task} for row, task in zip(pairs(*[f"{i}+0={i}" for i in range(6)]), tasks, strict=True)]
    sources = {"path": jsonl(tmp_path / "a.jsonl", rows), "by": "task"}
    corpus = load_corpus(recipe(tmp_path, sources), language_model())
    assert corpus.names == ["b", "a", "7"]
    ids = [[example.id for example in source.examples] for source in corpus.sources]
    assert ids == [["b/0", "b/1", "b/2"], ["a/0", "a/1"], ["7/0"]]
    assert corpus.sources[1].examples[1].row == rows[4]


def test_limit_takes_rows_from_the_front(tmp_path):
    name = jsonl(tmp_path / "a.jsonl", pairs("1+1=2", "2+2=4", "3+3=6"))
    corpus = load_corpus(recipe(tmp_path, [{"path": name, "limit": 2}]), language_model())
    assert [example.id for example in corpus.sources[0].examples] == ["a/0", "a/1"]


def test_names_are_the_whole_stem_or_the_recipes(tmp_path):
    jsonl(tmp_path / "mix.v2.jsonl", pairs("2+2=4"))
    sources = ["mix.v2.jsonl", {"path": "mix.v2.jsonl", "name": "other"}]
    assert load_corpus(recipe(tmp_path, sources), language_model()).names == ["mix.v2", "other"]


def overlapping(tmp_path, **options):
    target = {
        "train": {"path": jsonl(tmp_path / "t.jsonl", pairs("1+1=2", "5+5=10"))},
        "validation": {"path": jsonl(tmp_path / "v.jsonl", pairs("8+1=9", "2+2=4"))},
        "test": {"path": jsonl(tmp_path / "e.jsonl", pairs("5+5=10"))},
    }
    rows = pairs("1+2=3", "2+2=4", "2+2=5", "5+5=10", "2+2=4")
    return recipe(tmp_path, [jsonl(tmp_path / "a.jsonl", rows)], target=target, **options)


def test_overlapping_rows_are_dropped_and_counted_when_asked(tmp_path):
    corpus = load_corpus(overlapping(tmp_path, on_overlap="drop"), language_model())
    (source,) = corpus.sources
    assert [example.id for example in source.examples] == ["a/0", "a/2"]
    assert (source.overlapping, source.dropped) == (3, 0)
    assert [example.id for example in corpus.train.examples] == ["target-train/0"]
    assert corpus.train.overlapping == 1
    assert [len(part.examples) for part in (corpus.validation, corpus.test)] == [2, 1]


def test_overlap_is_an_error_by_default(tmp_path):
    with pytest.raises(GradexError) as error:
        load_corpus(overlapping(tmp_path), language_model())
    assert str(error.value) == (
        "4 training rows equal a validation or test row, such as a/1 and target-validation/1; "
        "remove them or set data.on_overlap=drop"
    )


def test_importing_the_stage_loads_no_model_library():
    code = "import sys, gradex_fast.data; print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
