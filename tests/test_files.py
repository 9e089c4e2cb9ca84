"""A file is whole or as it was before; what cannot be written is said in one line and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from gradex_fast.errors import GradexError
from gradex_fast.files import checksum, explained_if_full, file_checksum, read_json, write_atomically, write_json


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_its_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    write_atomically(path, "één\ud800")
    write_atomically(path, b"\x00two")
    assert path.read_bytes() == b"\x00two" and names(path.parent) == ["file.txt"]
    write_atomically(path, "é\ud800")  # a lone surrogate, which UTF-8 has no bytes for
    assert path.read_bytes() == "é".encode() + b"\\ud800"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, step):
    path = tmp_path / "file.txt"
    write_atomically(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(GradexError, match=r"^cannot write .*file.txt \(3 bytes\): No space left on device; [^\n]*$"):
        write_atomically(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == ["file.txt"]


def test_the_new_file_is_on_the_disk_before_it_takes_the_old_ones_name(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (order.append(os.fstat(number).st_size), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda *paths: (order.append("renamed"), replace(*paths)))
    write_atomically(tmp_path / "file.txt", "four")
    assert order == [4, "renamed"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(GradexError, match=r"^cannot write .*taken"):
        write_atomically(tmp_path / "taken" / "file.txt", "")


def test_json_goes_there_and_back(tmp_path):
    value = {"name": "Grüße\u2028", "numbers": [1, 0.1, 1e-300, None, True], "none": {}}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("content", [None, b"", b'{"a": 1', b"\xff\xfe"])
def test_json_that_is_missing_or_cut_off_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None


def test_checksums_know_parts_from_their_join(tmp_path):
    assert len(checksum("a")) == 32 and checksum("a", "b") == checksum(b"a", "b")
    assert len({checksum(*parts) for parts in [(), ("",), ("ab",), ("a", "b"), ("b", "a"), ("", "ab")]}) == 6


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_a_files_checksum_sees_its_last_byte(tmp_path, size):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(size))
    other.write_bytes(bytes(size))
    assert file_checksum(one) == file_checksum(other)
    other.write_bytes(bytes(max(0, size - 1)) + b"\x01")
    assert file_checksum(one) != file_checksum(other)


def test_an_error_on_a_full_disk_says_so_and_any_other_stays(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    said = pytest.raises(GradexError, match=r"cannot write below .*: the disk is full")
    with said as full, explained_if_full(tmp_path / "not" / "there", 2 * free):
        raise RuntimeError("unexpected pos 575104 vs 574996")
    assert "\n" not in str(full.value)
    with pytest.raises(RuntimeError, match="unexpected pos"), explained_if_full(tmp_path, 1):
        raise RuntimeError("unexpected pos 575104 vs 574996")
