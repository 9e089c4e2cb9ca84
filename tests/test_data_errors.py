"""What is wrong in the data is said in one line: file, line, column, and what to do."""

from __future__ import annotations

import pytest
from corpora import CHAT, characters, jsonl, language_model, pairs, recipe

from gradex_fast.data import load_corpus
from gradex_fast.errors import GradexError

CLASSIFIER = {"task": "sequence-classification", "labels": 2}


def refused(plan, tokenizer=None) -> str:
    with pytest.raises(GradexError) as error:
        load_corpus(plan, tokenizer or language_model())
    assert "\n" not in str(error.value)
    return str(error.value)


def refused_rows(tmp_path, rows, tokenizer=None, **options) -> str:
    path = jsonl(tmp_path / "a.jsonl", rows)
    return refused(recipe(tmp_path, [path], **options), tokenizer)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"prompt": "1"}, "a.jsonl line 2: no column 'completion' (columns: prompt)"),
        ({}, "a.jsonl line 2: no column 'prompt' (columns: none)"),
        ({"prompt": "1", "completion": None}, "a.jsonl line 2: column 'completion' is null"),
        ({"prompt": "1", "completion": 2}, "a.jsonl line 2: column 'completion' is int, not text"),
        ({"prompt": "\ud83d", "completion": "2"}, "a.jsonl line 2: column 'prompt' is broken Unicode, not text"),
    ],
)
def test_a_row_without_a_proper_cell(tmp_path, bad, message):
    assert refused_rows(tmp_path, [*pairs("2+2=4"), bad]) == message


def test_a_named_column_that_no_row_has(tmp_path):
    jsonl(tmp_path / "a.jsonl", pairs("2+2=4"))
    plan = recipe(tmp_path, [{"path": "a.jsonl", "prompt": "question"}])
    assert refused(plan) == "a.jsonl line 1: no column 'question' (columns: prompt, completion)"


def test_columns_of_no_known_format(tmp_path):
    assert refused_rows(tmp_path, [{"question": "a", "answer": "b"}]) == (
        "a.jsonl: columns question, answer are of no known format (prompt+completion, "
        "instruction(+input)+output, messages, conversations, text); "
        "name the columns in the recipe (prompt and completion, messages, or text)"
    )
    assert refused_rows(tmp_path, [{"sentence": "a"}], model=CLASSIFIER) == (
        "a.jsonl: columns sentence are of no known format (text(+text2 or text_pair)+label); "
        "name the columns in the recipe (text and label)"
    )


@pytest.mark.parametrize(
    ("named", "model", "message"),
    [
        ({"label": "y"}, None, "a.jsonl: no use for label: 'y'; model.task is causal-lm"),
        ({"prompt": "p", "text": "t"}, None, "a.jsonl: no use for text: 't'; prompt or completion is named as well"),
        ({"prompt": "p"}, CLASSIFIER, "a.jsonl: no use for prompt: 'p'; model.task is sequence-classification"),
    ],
)
def test_columns_named_for_another_task(tmp_path, named, model, message):
    jsonl(tmp_path / "a.jsonl", pairs("2+2=4"))
    assert refused(recipe(tmp_path, [{"path": "a.jsonl", **named}], model=model)) == message


@pytest.mark.parametrize("label", [2, -1, True, 1.0, "one", "2"])
def test_a_label_that_is_no_class(tmp_path, label):
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": label}]
    expected = f"a.jsonl line 2: column 'label' is {label!r}, not an integer from 0 to 1"
    assert refused_rows(tmp_path, rows, model=CLASSIFIER) == expected


def test_a_classifier_without_a_number_of_classes(tmp_path):
    message = refused_rows(tmp_path, [{"text": "a", "label": 1}], model={"task": "sequence-classification"})
    assert message == "model.labels, the number of classes, must be set for a classifier"


def test_messages_without_a_template(tmp_path):
    assert refused_rows(tmp_path, [{"messages": [{"role": "assistant", "content": "a"}]}]) == (
        "a.jsonl line 1: messages need a chat template and this tokenizer has none; use prompt and completion columns"
    )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "a.jsonl line 1: column 'messages' must be a list of role and content, or of from and value"),
        ("hi", "a.jsonl line 1: column 'messages' must be a list of role and content, or of from and value"),
        ([{"role": "user"}], "a.jsonl line 1: column 'messages': role and content must both be text"),
        (["hi"], "a.jsonl line 1: column 'messages': role and content must both be text"),
    ],
)
def test_malformed_messages(tmp_path, messages, message):
    assert refused_rows(tmp_path, [{"messages": messages}], language_model(chat_template=CHAT)) == message


def test_messages_that_the_template_refuses(tmp_path):
    template = "{{ raise_exception('roles must\n alternate') }}"
    rows = [{"messages": [{"role": "assistant", "content": "a"}]}]
    expected = "a.jsonl line 1: the chat template refuses the messages: roles must alternate"
    assert refused_rows(tmp_path, rows, language_model(chat_template=template)) == expected


def test_a_template_that_rewrites_earlier_turns(tmp_path):
    template = CHAT.replace("{{ m['content'] }}", "{{ m['content'] if loop.last else '...' }}")
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    rows = [{"messages": [{"role": role, "content": content} for role, content in said]}]
    message = refused_rows(tmp_path, rows, language_model(chat_template=template))
    assert message.startswith("a.jsonl line 1: the chat template rewrites earlier turns, so message 2 cannot")


def test_a_source_of_rows_that_are_all_too_long(tmp_path):
    rows = pairs(*(f"{10**20 + i}+0=1" for i in range(25)))
    assert refused_rows(tmp_path, rows, max_length=16) == (
        "source 'a': all 25 rows are longer than max_length=16 (25 cut); raise data.max_length or remove the source"
    )


def test_a_source_without_a_supervised_token(tmp_path):
    rows = pairs("1=", "12345678901234=5")
    message = refused_rows(tmp_path, rows, characters(pad_token="<pad>"), max_length=8)
    assert message == "source 'a': no row has a supervised token (1 cut at max_length=8, 2 dropped)"


def test_empty_sources_and_validation(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", pairs("2+2=4"))
    (tmp_path / "none.jsonl").write_text("\n")
    assert refused(recipe(tmp_path, [source, "none.jsonl"])) == "source 'none': none.jsonl has no rows"
    grouped = recipe(tmp_path, {"path": "none.jsonl", "by": "task"})
    assert refused(grouped) == "data.sources: none.jsonl has no rows"
    target = {"validation": {"path": "none.jsonl"}}
    assert refused(recipe(tmp_path, [source], target=target)) == "data.target.validation: none.jsonl has no rows"


def test_a_csv_of_a_header_alone_has_no_rows(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,completion\n")
    assert refused(recipe(tmp_path, ["a.csv"])) == "source 'a': a.csv has no rows"


@pytest.mark.parametrize("name", ["a", "target-validation"])
def test_two_sources_of_one_name(tmp_path, name):
    source = jsonl(tmp_path / "a.jsonl", pairs("2+2=4"))
    plan = recipe(tmp_path, [source, {"path": source, "name": name}])
    assert refused(plan) == f"two sources are called {name!r}; give each a `name` of its own"


@pytest.mark.parametrize("value", [None, "", True, 1.5, ["a"]])
def test_a_row_that_names_no_group(tmp_path, value):
    rows = [pairs("2+2=4")[0] | {"task": "x"}, pairs("1+3=4")[0] | {"task": value}]
    plan = recipe(tmp_path, {"path": jsonl(tmp_path / "a.jsonl", rows), "by": "task"})
    option = ", and does not in 1 of the rows; set data.sources.unassigned to drop or source" if not value else ""
    assert refused(plan) == "a.jsonl line 2: column 'task' must name the row's source" + option


def test_a_column_of_groups_that_no_row_has(tmp_path):
    sources = {"path": jsonl(tmp_path / "a.jsonl", pairs("2+2=4")), "by": "tsak", "unassigned": "drop"}
    message = "a.jsonl: no row has a source in column 'tsak' (columns: prompt, completion)"
    assert refused(recipe(tmp_path, sources)) == message


def test_a_source_that_is_all_held_out_rows(tmp_path):
    message = refused_rows(tmp_path, pairs("8+1=9"), on_overlap="drop")
    assert message == "source 'a': every row equals a validation or test row"
