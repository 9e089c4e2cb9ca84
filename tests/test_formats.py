"""Formats and losses as trl and axolotl have them: which tokens there are, and which are trained on."""

from __future__ import annotations

import pytest
from corpora import CHAT, characters, decoded, jsonl, language_model, pairs, recipe
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from gradex_fast.batch import collate
from gradex_fast.data import load_corpus
from gradex_fast.data.files import Row
from gradex_fast.data.formats import format_of
from gradex_fast.data.tokenise import tokenise
from gradex_fast.data_sections import DataRecipe, FileRecipe
from gradex_fast.errors import GradexError
from gradex_fast.sections import ModelRecipe
from gradex_fast.types import UNSUPERVISED, Source
from gradex_fast.workspace import corpus_checksum

MARKED = (
    "{% for m in messages %}<bos>{{ m['role'] }}:{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<eos>{% endgeneration %}{% else %}{{ m['content'] }}<eos>{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<bos>assistant:{% endif %}"
)
SAID = [("system", "be"), ("user", "hi"), ("assistant", "yo"), ("user", "oh"), ("assistant", "so")]
WHOLE = "<bos>system:be<eos>\n<bos>user:hi<eos>\n<bos>assistant:yo<eos>\n<bos>user:oh<eos>\n<bos>assistant:so<eos>\n"


def messages(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in said]


def chat(template: str = CHAT) -> PreTrainedTokenizerFast:
    return language_model(bos=True, bos_token="<bos>", chat_template=template)


def source(rows, tokenizer, file=None, model=None, **options) -> Source:
    """`rows` as they would be of a file "a.jsonl" with the keys of `file`."""
    plan = FileRecipe(path="a.jsonl", **(file or {}))
    data = DataRecipe(sources=[{"path": "a.jsonl"}], target={"validation": {"path": "v.jsonl"}}, **options)
    placed = [Row(f"a.jsonl line {number}", row) for number, row in enumerate(rows, 1)]
    found = format_of(placed, plan, ModelRecipe(name="none", **(model or {})), data, tokenizer)
    return tokenise("a", placed, [found.convert(row) for row in placed], tokenizer, data, found.name)


def trained(rows, tokenizer, file=None, **options) -> list[tuple[str, str]]:
    """Of each row its text, and what of it is under the loss."""
    found = []
    for example in source(rows, tokenizer, file, **options).examples:
        on = example.labels != UNSUPERVISED
        assert (example.labels[on] == example.input_ids[on]).all()
        found.append((decoded(tokenizer, example.input_ids), decoded(tokenizer, example.input_ids[on])))
    return found


def refused(*arguments, **options) -> str:
    with pytest.raises(GradexError) as error:
        source(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("option", "loss"), [(None, "4<eos>"), (True, "4<eos>"), (False, "+2=4<eos>")])
def test_completion_only_loss_of_prompt_and_completion(option, loss):
    # nothing predicts the first token, so that it has no loss either way
    assert trained(pairs("2+2=4"), language_model(), completion_only_loss=option) == [("2+2=4<eos>", loss)]


def test_with_bos_the_loss_on_everything_has_the_whole_text():
    tokenizer = language_model(bos=True, bos_token="<bos>")
    assert trained(pairs("2+2=4"), tokenizer, completion_only_loss=False) == [("<bos>2+2=4<eos>", "2+2=4<eos>")]


def test_completion_only_loss_of_alpaca_rows():
    rows = [{"instruction": "Go.", "output": "Hi"}]
    ((text, loss),) = trained(rows, language_model())
    assert (text[-12:], loss) == ("nse:\nHi<eos>", "Hi<eos>")
    ((text, loss),) = trained(rows, language_model(), completion_only_loss=False)
    assert loss == text[1:]


@pytest.mark.parametrize("template", [CHAT, MARKED])
def test_assistant_only_loss_false_is_on_every_token(template):
    rows = [{"messages": messages(*SAID)}]
    assert trained(rows, chat(template), assistant_only_loss=False) == [(WHOLE, WHOLE[len("<bos>") :])]


@pytest.mark.parametrize(("template", "loss"), [(CHAT, "yo<eos>\nso<eos>\n"), (MARKED, "yo<eos>so<eos>")])
@pytest.mark.parametrize("option", [None, True])
def test_assistant_turns_by_the_templates_marks_or_by_rendering_what_is_before(template, loss, option):
    assert trained([{"messages": messages(*SAID)}], chat(template), assistant_only_loss=option) == [(WHOLE, loss)]


def test_marked_tokens_are_those_of_transformers_even_where_one_begins_before_its_turn():
    words = {word: i for i, word in enumerate(["<unk>", "<eos>", "user:", "hi", " assistant: yo", "<eos>.", " no"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("|", "removed")
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}user:|hi|{% else %} assistant: "
        "{% generation %}{{ m.content }}{% endgeneration %}|<eos>.| no{% endif %}{% endfor %}"
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", chat_template=template)
    said = messages(("user", "hi"), ("assistant", "yo"))
    options = {"tokenize": True, "return_dict": True, "return_assistant_tokens_mask": True}
    expected = tokenizer.apply_chat_template(said, **options)
    (example,) = source([{"messages": said}], tokenizer).examples
    assert example.input_ids.tolist() == expected["input_ids"] == [2, 3, 4, 5, 6]
    assert (example.labels != UNSUPERVISED).tolist() == [bool(on) for on in expected["assistant_masks"]]
    assert example.supervised == 1


def test_the_format_says_which_way_was_taken():
    rows = [{"messages": messages(*SAID)}]
    names = [source(rows, chat(template)).format for template in (CHAT, MARKED)]
    assert names == [
        "conversation: loss on assistant turns (found by rendering what is before them)",
        "conversation: loss on assistant turns (as {% generation %} in the chat template marks them)",
    ]
    every = source(rows, chat(MARKED), assistant_only_loss=False).format
    assert every == "conversation: loss on every token"
    assert source(pairs("2+2=4"), chat()).format == "prompt and completion: loss on the completion"


@pytest.mark.parametrize("column", ["conversations", "messages", "said"])
def test_sharegpt_rows_are_those_of_messages(column):
    named = {"user": "human", "assistant": "gpt"}
    rows = [{column: [{"from": named.get(role, role), "value": content} for role, content in SAID]}]
    file = {"messages": "said"} if column == "said" else None
    assert trained(rows, chat(), file) == [(WHOLE, "yo<eos>\nso<eos>\n")]


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (
            {"from": "narrator", "value": "x"},
            "column 'conversations': from is 'narrator', none of system, human, user, ",
        ),
        ({"from": "gpt", "value": None}, "column 'conversations': from and value must both be text"),
        ({"value": "x"}, "column 'conversations': role and content must both be text"),
    ],
)
def test_malformed_sharegpt_rows(turn, message):
    assert refused([{"conversations": [turn]}], chat()).startswith(f"a.jsonl line 1: {message}")


@pytest.mark.parametrize(
    ("options", "loss"),
    [
        ({}, "yo<eos>\n<bos>user:oh<eos>\n<bos>assistant:so<eos>\n"),
        ({"assistant_only_loss": True}, "yo<eos>\nso<eos>\n"),
        ({"completion_only_loss": False}, WHOLE[len("<bos>") :]),
    ],
)
def test_prompt_and_completion_may_be_conversations(options, loss):
    rows = [{"prompt": messages(*SAID[:2]), "completion": messages(*SAID[2:])}]
    assert trained(rows, chat(), **options) == [(WHOLE, loss)]


def test_assistant_turns_of_the_prompt_are_context():
    rows = [{"prompt": messages(*SAID[:4]), "completion": messages(*SAID[4:])}]
    for template, end in ((CHAT, "\n"), (MARKED, "")):
        assert trained(rows, chat(template), assistant_only_loss=True) == [(WHOLE, "so<eos>" + end)]


@pytest.mark.parametrize(
    ("rows", "option", "message"),
    [
        (pairs("2+2=4"), "assistant_only_loss", "data.assistant_only_loss is for conversations, not for prompt and"),
        (
            [{"text": "a"}],
            "assistant_only_loss",
            "data.assistant_only_loss has no meaning for plain text; leave it out",
        ),
        ([{"text": "a"}], "completion_only_loss", "data.completion_only_loss has no meaning for plain text; leave"),
        ([{"messages": messages(*SAID)}], "completion_only_loss", "data.completion_only_loss is for prompt and"),
    ],
)
def test_a_loss_that_the_format_does_not_have(rows, option, message):
    assert refused(rows, chat(), **{option: True}).startswith(f"a.jsonl: {message}")


def test_a_cut_at_the_left_keeps_the_end_and_its_first_token_has_no_loss():
    rows = pairs("1111+1=23", "1+1=2")
    found = source(rows, language_model(), max_length=3, truncation_side="left")
    texts = [decoded(language_model(), example.input_ids) for example in found.examples]
    assert texts == ["23<eos>", "=2<eos>"]
    assert [example.supervised for example in found.examples] == [2, 2]
    assert [example.cut for example in found.examples] == [7, 3]
    assert (found.truncated, found.dropped) == (2, 0)


def test_a_classifiers_cut_at_the_left_keeps_both_special_tokens():
    tokenizer = characters(pair=True, cls_token="[CLS]", sep_token="[SEP]", pad_token="<pad>")
    model = {"task": "sequence-classification", "labels": 2}
    rows = [{"text": "abcdef", "label": 1}]
    found = source(rows, tokenizer, model=model, max_length=5, truncation_side="left")
    assert decoded(tokenizer, found.examples[0].input_ids) == "[CLS]def[SEP]"
    assert (tokenizer.truncation_side, found.examples[0].cut) == ("right", 3)


def test_templates_put_columns_words_and_numbers_into_text():
    rows = [
        {"q": "Is {x} red?", "options": ["a", "b"], "more": {"n": [1]}, "label": True, "score": 2.46},
        {"q": "Why?", "options": ["c", "d"], "more": {"n": [2]}, "label": False, "score": 3},
    ]
    file = {
        "prompt_template": "{{Q}} {q} {options[0]}/{options[1]} {more[n][0]}=",
        "completion_template": "{label} {score:.1f}",
        "words": {"label": {True: "yes", False: "no"}},
    }
    assert trained(rows, language_model(), file) == [
        ("{Q} Is {x} red? a/b 1=yes 2.5<eos>", "yes 2.5<eos>"),
        ("{Q} Why? c/d 2=no 3.0<eos>", "no 3.0<eos>"),
    ]


def test_a_template_beside_a_column():
    rows = [{"question": "a", "completion": "b"}]
    assert trained(rows, language_model(), {"prompt_template": "{question}:"}) == [("a:b<eos>", "b<eos>")]


@pytest.mark.parametrize(
    ("template", "row", "message"),
    [
        ("{c}", {"a": "x"}, "a.jsonl: completion_template has the column 'c', which no row has (columns: p, a, l, o)"),
        ("{a}", {}, "a.jsonl line 2: completion_template: there is no 'a'"),
        ("{a}", {"a": None}, "a.jsonl line 2: completion_template: 'a' is null, not text"),
        ("{l}", {"l": ["x"]}, "a.jsonl line 2: completion_template: 'l' is no single value, not text"),
        ("{l[1]}", {"l": ["x"]}, "a.jsonl line 2: completion_template: there is no 'l[1]'"),
        ("{l[k]}", {"l": "x"}, "a.jsonl line 2: completion_template: there is no 'l[k]'"),
        ("{a:.1f}", {"a": "x"}, "a.jsonl line 2: completion_template: 'a' is 'x', not of format '.1f'"),
        ("{o}", {"o": 2}, "a.jsonl line 2: completion_template: 'o' is 2, for which words has none of 0, 1"),
        ("{a}", {"a": "\ud83d"}, "a.jsonl line 2: completion_template: a column is broken Unicode, not text"),
    ],
)
def test_templates_that_a_row_does_not_fill(template, row, message):
    good = {"p": "p", "a": "1" if ":" not in template else 1.0, "l": {"1": "x", "k": "y"}, "o": 1}
    if template == "{l}":
        good["l"] = "z"
    file = {"prompt_template": "{p}", "completion_template": template}
    words = {"words": {"o": {0: "no", 1: "yes"}}} if template == "{o}" else {}
    assert refused([good, {"p": "p", **row}], language_model(), {**file, **words}) == message


def test_an_eos_that_is_also_the_padding_is_attended_to_and_trained_on_and_padding_is_not():
    tokenizer = language_model(pad_token="<eos>")
    short, long = source(pairs("2+2=4", "2+2=444"), tokenizer).examples
    batch = collate([short, long], pad_id=tokenizer.pad_token_id)
    assert batch["input_ids"][0, 5:].tolist() == [tokenizer.eos_token_id] * 3
    assert batch["attention_mask"][0].tolist() == [1] * 6 + [0] * 2
    assert batch["labels"][0, 5:].tolist() == [tokenizer.eos_token_id, UNSUPERVISED, UNSUPERVISED]


def checksum(folder, file=None, **options) -> str:
    plan = recipe(folder, [{"path": "a.jsonl", **(file or {})}], **options)
    return corpus_checksum(load_corpus(plan, language_model()))


def test_the_corpus_checksum_changes_with_whatever_is_trained_on(tmp_path):
    jsonl(tmp_path / "a.jsonl", [row | {"other": "7"} for row in pairs("11+1=12", "2+2=4")])
    found = [
        checksum(tmp_path),
        checksum(tmp_path, completion_only_loss=False),
        checksum(tmp_path, max_length=7),
        checksum(tmp_path, max_length=7, truncation_side="left"),
        checksum(tmp_path, {"completion": "other"}),
        checksum(tmp_path, {"completion_template": "{other}!"}),
        checksum(tmp_path, {"completion_template": "{other}!", "words": {"other": {7: "seven"}}}),
    ]
    assert len(set(found)) == len(found)
    assert checksum(tmp_path) == found[0] == checksum(tmp_path, completion_only_loss=True)


def test_a_chat_templates_marks_change_the_digest():
    rows = [{"messages": messages(*SAID)}]
    one, other = (source(rows, chat(template)).examples[0] for template in (CHAT, MARKED))
    assert one.input_ids.tolist() == other.input_ids.tolist()
    assert one.digest != other.digest
