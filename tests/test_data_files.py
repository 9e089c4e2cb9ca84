"""Each kind of file is read as it stands: values, row places, no cache, no silent loss."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard
from corpora import decoded, jsonl, language_model, pairs, recipe

from gradex_fast.data import load_corpus
from gradex_fast.data.read import read, stem
from gradex_fast.data_sections import FileRecipe
from gradex_fast.errors import GradexError

ROWS = [*pairs("2+2=4", "1+3=4"), {"prompt": "q", "completion": "é", "n": 1}]


def values(folder: Path, name: str, **options) -> list[dict]:
    return [row.values for row in read(FileRecipe(path=name, **options), folder)]


def refused(folder: Path, name: str, **options) -> str:
    with pytest.raises(GradexError) as error:
        read(FileRecipe(path=name, **options), folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(path: Path, rows: list[dict]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    form = path.name.partition(".")[2]
    if form == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif form == "json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        squeeze = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}[form]
        path.write_bytes(squeeze(lines))


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "json", "parquet"])
def test_every_format_gives_the_same_rows_and_name(tmp_path, form):
    write(tmp_path / f"mix.{form}", pairs("2+2=4", "1+3=4"))
    assert values(tmp_path, f"mix.{form}") == pairs("2+2=4", "1+3=4")
    corpus = load_corpus(recipe(tmp_path, [f"mix.{form}"]), language_model())
    assert [e.id for e in corpus.sources[0].examples] == ["mix/0", "mix/1"]


def test_csv_values_stay_the_text_they_are(tmp_path):
    text = '\ufeffprompt,completion\r\n"a, ""b""\r\nc",07\r\n\r\nNA,2020-01-01\r\n,\r\n'
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert values(tmp_path, "a.csv") == [
        {"prompt": 'a, "b"\r\nc', "completion": "07"},
        {"prompt": "NA", "completion": "2020-01-01"},
        {"prompt": "", "completion": ""},
    ]
    places = [row.place for row in read(FileRecipe(path="a.csv"), tmp_path)]
    assert places == ["a.csv line 2", "a.csv line 5", "a.csv line 6"]


def test_csv_may_be_compressed_and_label_a_classifier(tmp_path):
    (tmp_path / "a.csv.zst").write_bytes(zstandard.compress(b"text,label\nab,1\ncd,0\n"))
    (tmp_path / "v.csv.gz").write_bytes(gzip.compress(b"text,label\nxy,1\n"))
    model = {"task": "sequence-classification", "labels": 2}
    target = {"validation": {"path": "v.csv.gz"}}
    corpus = load_corpus(recipe(tmp_path, ["a.csv.zst"], target=target, model=model), language_model())
    assert [e.labels.tolist() for e in corpus.sources[0].examples] == [[1], [0]]


def test_json_values_are_not_guessed_at(tmp_path):
    rows = [{"text": "2020-01-01", "text2": None}, {"text": "2020-01-02", "n": 2**70}, {"text": "\u2028x"}]
    jsonl(tmp_path / "a.jsonl", rows)
    assert values(tmp_path, "a.jsonl") == rows


def test_lines_are_counted_with_blank_ones_and_over_blocks(tmp_path):
    long = "x" * (1 << 20)
    (tmp_path / "a.jsonl").write_text("\n".join(["", json.dumps({"text": long}), " ", '{"text": "é"}']))
    rows = read(FileRecipe(path="a.jsonl"), tmp_path)
    assert [row.place for row in rows] == ["a.jsonl line 2", "a.jsonl line 4"]
    assert [row.values["text"] for row in rows] == [long, "é"]


def test_zstandard_of_several_frames_is_read_to_its_end(tmp_path):
    frames = [zstandard.compress(json.dumps(row).encode() + b"\n") for row in ROWS]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    assert values(tmp_path, "a.jsonl.zst") == ROWS


@pytest.mark.parametrize("form", ["jsonl.gz", "jsonl.zst", "parquet"])
def test_a_file_cut_short_is_an_error(tmp_path, form):
    write(tmp_path / f"a.{form}", [{"text": os.urandom(50).hex()} for _ in range(500)])
    whole = (tmp_path / f"a.{form}").read_bytes()
    (tmp_path / f"a.{form}").write_bytes(whole[: len(whole) // 2])
    assert refused(tmp_path, f"a.{form}").startswith(f"cannot read a.{form}: ")


@pytest.mark.parametrize("form", ["jsonl.gz", "jsonl.zst", "parquet"])
def test_a_file_of_another_kind_is_an_error(tmp_path, form):
    (tmp_path / f"a.{form}").write_text('{"text": "plain"}\n')
    assert refused(tmp_path, f"a.{form}").startswith(f"cannot read a.{form}: ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n\n{"text" "b"}\n', "a.jsonl line 3, character 9: Expecting ':' delimiter"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', 'a.jsonl line 2: a row must be an object of columns, not ["b"]'),
        ("a.json", b'[{"text": "a"}, 3]', "a.json row 2: a row must be an object of columns, not 3"),
        ("a.csv", b"text,label\na,1\nb\n", "a.csv line 3: 1 fields under a header of 2"),
        ("a.csv", b'text\nx\n"a\nb\n', "a.csv line 3: unexpected end of data"),
        ("a.json", b'[{"text": "a"', "cannot read a.json: Expecting ',' delimiter: line 1 column 14 (char 13)"),
    ],
)
def test_malformed_rows_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path, name) == message


def test_text_that_is_not_utf8_is_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('{"text": "é"}'.encode("latin-1"))
    assert refused(tmp_path, "a.jsonl").startswith("cannot read a.jsonl: 'utf-8' codec can't decode")


def test_missing_unknown_and_misdescribed_files(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    jsonl(tmp_path / "a.jsonl", ROWS)
    assert refused(tmp_path, "no.jsonl") == f"cannot find file {tmp_path}/no.jsonl; relative paths start at data.folder"
    assert refused(tmp_path, "a.txt").startswith(f"cannot tell the format of {tmp_path}/a.txt; known endings: .jsonl")
    assert refused(tmp_path, "./x/y/z").startswith(f"cannot find {tmp_path}/x/y/z; check data.folder")
    for option in ({"split": "test"}, {"config": "main"}, {"revision": "v1"}, {"files": "a*"}):
        assert refused(tmp_path, "a.jsonl", **option).startswith("a.jsonl is a file: config, revision, files and split")


def test_glob_characters_are_only_characters(tmp_path):
    jsonl(tmp_path / "a[1]*.jsonl", ROWS)
    assert values(tmp_path, "a[1]*.jsonl") == ROWS


def test_absolute_paths_and_limits(tmp_path):
    jsonl(tmp_path / "a.jsonl", ROWS)
    assert values(Path("/nowhere"), str(tmp_path / "a.jsonl"), limit=1) == ROWS[:1]


def test_a_changed_file_is_read_anew(tmp_path):
    tokenizer, plan = language_model(), recipe(tmp_path, [jsonl(tmp_path / "a.jsonl", pairs("2+2=4"))])
    before = load_corpus(plan, tokenizer).sources[0].examples[0]
    stamp = (tmp_path / "a.jsonl").stat()
    jsonl(tmp_path / "a.jsonl", pairs("2+2=5"))
    os.utime(tmp_path / "a.jsonl", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = load_corpus(plan, tokenizer).sources[0].examples[0]
    assert (decoded(tokenizer, before.input_ids), decoded(tokenizer, after.input_ids)) == ("2+2=4<eos>", "2+2=5<eos>")


def test_local_files_leave_nothing_in_the_users_home(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    for form in ("jsonl.zst", "parquet"):
        write(tmp_path / f"a.{form}", ROWS[:2])
    code = (
        "import sys; from gradex_fast.data.read import read; from gradex_fast.data_sections import FileRecipe\n"
        "print(sum(len(read(FileRecipe(path=name), sys.argv[1])) for name in ('a.jsonl.zst', 'a.parquet')))"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))} | {"HOME": str(home)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), list(home.iterdir())) == ("4", [])


def test_a_hub_id_goes_to_load_dataset_without_progress_bars(tmp_path, monkeypatch):
    import datasets

    calls = []

    def load_dataset(*arguments, **options):
        calls.append((arguments, options, datasets.are_progress_bars_disabled()))
        return pairs("2+2=4", "1+3=4")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    datasets.enable_progress_bars()
    file = FileRecipe(path="org/sums", config="easy", split="test", revision="v1", limit=1)
    (row,) = read(file, tmp_path)
    assert calls == [(("org/sums", "easy"), {"split": "test", "revision": "v1"}, True)]
    assert not datasets.are_progress_bars_disabled()
    assert (row.place, row.values, stem(file)) == ("org/sums row 1", pairs("2+2=4")[0], "sums-easy")


def test_a_folder_is_read_as_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "sums").mkdir()
    jsonl(tmp_path / "sums" / "test.jsonl", pairs("2+2=4"))
    assert values(tmp_path, "sums", split="test") == pairs("2+2=4")


def test_a_hub_id_that_fails_says_that_there_was_no_file_either(tmp_path, monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no route\n to host")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    expected = f"cannot read org/sums from the hub (no such file: {tmp_path}/org/sums): no route to host"
    assert refused(tmp_path, "org/sums") == expected
