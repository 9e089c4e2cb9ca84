"""Sketches on disk: what was written is read to the bit; what is missing, damaged or foreign is found out."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gradex_fast.errors import GradexError
from gradex_fast.store import SketchStore
from gradex_fast.types import Sketches

IDENTITY = {"seed": 0, "sketch.dim": 4, "model": "abc", "model.targets": ["q", "v"], "sketch.parameters": None}
SHARD = 4


def store(folder, **changed) -> SketchStore:
    return SketchStore(folder, IDENTITY | changed, shard_rows=SHARD)


def sketches(rows: int, seed: int = 0) -> Sketches:
    random = np.random.default_rng(seed)
    g = random.standard_normal((rows, 4)).astype(np.float32)
    g[0, 0] = np.nan  # a row that on_nonfinite=skip let through
    return Sketches(g, random.standard_normal(rows), random.random(rows))


def write(store: SketchStore, split: str, whole: Sketches, gaps: list[range] | None = None) -> None:
    for rows in store.missing(split, len(whole)) if gaps is None else gaps:
        store.write(split, rows, whole[rows.start : rows.stop], [f"{row:016x}" for row in rows])


def parts(sketches: Sketches) -> tuple[np.ndarray, ...]:
    return sketches.g, sketches.margin, sketches.loss


def assert_same(found: Sketches, truth: Sketches) -> None:
    for name in ("g", "margin", "loss"):
        one, other = getattr(found, name), getattr(truth, name)
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes(), name


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 45])
def test_round_trip(tmp_path, rows):
    """45 rows are 12 shards: their order is that of their numbers."""
    train, validation = sketches(rows), sketches(6, seed=1)
    write(store(tmp_path), "train", train)
    write(store(tmp_path), "validation", validation)
    again = store(tmp_path)
    assert again.missing("train", rows) == again.missing("validation", 6) == []
    assert_same(again.read("train", rows), train)
    assert_same(again.read("validation", 6), validation)


@pytest.mark.parametrize(("rows", "count"), [(0, 0), (1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_an_empty_store_misses_all_rows_once(tmp_path, rows, count):
    gaps = store(tmp_path).missing("train", rows)
    assert len(gaps) == count and [row for gap in gaps for row in gap] == list(range(rows))


def test_only_what_is_missing_is_asked_for(tmp_path):
    whole = sketches(14)
    write(store(tmp_path), "train", whole, [range(4, 8), range(12, 14)])
    assert store(tmp_path).missing("train", 14) == [range(0, 4), range(8, 12)]
    with pytest.raises(GradexError, match=r"2 shards are missing .* \(train-000000.*, train-000002.*sketch again"):
        store(tmp_path).read("train", 14)
    write(store(tmp_path), "train", whole)
    assert_same(store(tmp_path).read("train", 14), whole)


def test_a_shard_of_other_rows_is_missing(tmp_path):
    write(store(tmp_path), "train", sketches(6))
    assert store(tmp_path).missing("train", 7) == [range(4, 7)]


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "foreign"])
def test_a_damaged_shard_is_found_and_only_it_is_redone(tmp_path, damage):
    whole = sketches(12)
    write(store(tmp_path), "train", whole)
    path = tmp_path / "train-000001.safetensors"
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "delete":
        path.unlink()
    else:
        write(store(tmp_path / "other", seed=1), "train", whole)
        path.write_bytes((tmp_path / "other" / path.name).read_bytes())
    again = store(tmp_path)
    assert again.missing("train", 12) == [range(4, 8)]
    write(again, "train", whole)
    assert_same(store(tmp_path).read("train", 12), whole)


def test_what_was_put_together_follows_its_shards(tmp_path):
    """A shard that is written anew, and a matrix that something else wrote to."""
    whole, other = sketches(12), sketches(12, seed=1)
    write(store(tmp_path), "train", whole)
    first = store(tmp_path).read("train", 12)
    assert not first.g.flags.writeable
    write(store(tmp_path), "train", other, [range(4, 8)])
    mixed = Sketches(*(np.concatenate([a[:4], b[4:8], a[8:]]) for a, b in zip(parts(whole), parts(other), strict=True)))
    assert_same(store(tmp_path).read("train", 12), mixed)
    assert_same(first, whole)  # is still open, and as it was
    (tmp_path / "train.npy").write_bytes(b"something else")
    assert_same(store(tmp_path).read("train", 12), mixed)


def test_a_shard_that_was_damaged_after_it_was_put_together(tmp_path):
    write(store(tmp_path), "train", sketches(12))
    store(tmp_path).read("train", 12)
    path = tmp_path / "train-000001.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    assert store(tmp_path).missing("train", 12) == [range(4, 8)]
    with pytest.raises(GradexError, match="1 shards are missing or damaged"):
        store(tmp_path).read("train", 12)


@pytest.mark.parametrize("field", IDENTITY)
def test_sketches_of_something_else_are_refused(tmp_path, field):
    store(tmp_path)
    with pytest.raises(GradexError, match=rf"manifest.json was made with {field} = .*, this run has 'other'; "):
        store(tmp_path, **{field: "other"})
    with pytest.raises(GradexError, match="shard_rows = 4, this run has 5"):
        SketchStore(tmp_path, IDENTITY, shard_rows=5)


DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import SHARD, sketches, store, write
from gradex_fast.errors import GradexError
folder, whole = Path({folder!r}), sketches(12)
write(store(folder), "train", whole, [range(0, 4), range(4, 8)])
size = (folder / "train-000001.safetensors").stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
try:
    write(store(folder), "train", whole, [range(8, 12)])
except GradexError as error:
    print(error)
"""


def test_a_disk_that_is_full_in_the_middle_of_a_shard(tmp_path):
    """The operating system itself refuses the write, half-way."""
    program = DISK.format(tests=str(__file__).rpartition("/")[0], folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout and "train-000002" in done.stdout and done.stdout.count("\n") == 1
    kept = ["manifest.json", "train-000000.safetensors", "train-000001.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    again, whole = store(tmp_path), sketches(12)
    assert again.missing("train", 12) == [range(8, 12)]
    write(again, "train", whole)
    assert_same(store(tmp_path).read("train", 12), whole)


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_store import store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150, resource.RLIM_INFINITY))
try:
    store(Path({folder!r})).read("train", 12)
except OSError as error:
    print(type(error).__name__)
"""


def test_a_disk_that_is_full_while_shards_are_put_together(tmp_path):
    whole = sketches(12)
    write(store(tmp_path), "train", whole)
    program = FULL.format(tests=str(__file__).rpartition("/")[0], folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "OSError\n"
    assert not list(tmp_path.glob("*.npy")) + list(tmp_path.glob(".train*"))
    assert_same(store(tmp_path).read("train", 12), whole)
