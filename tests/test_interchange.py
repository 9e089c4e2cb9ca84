"""Sketches in other tools' forms: what is written is read to the bit, by them too; every fault is named in a line."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gradex_fast import interchange, read_sketches, write_sketches
from gradex_fast.errors import GradexError
from gradex_fast.types import Sketches

FORMS = tuple(interchange.FORMS)
MAIN = {
    "bergson": "gradients.bin",
    "trak": "0/grads.mmap",
    "npy": "sketches.npy",
    "safetensors": "sketches.safetensors",
}
OTHERS = {
    "bergson": ["info.json"],
    "trak": ["0/out_to_loss.mmap", "0/_is_featurized.mmap"],
    "npy": [],
    "safetensors": [],
}
DIM = 6


@pytest.fixture
def trak():
    return pytest.importorskip("trak", reason="traker is not installed")


@pytest.fixture
def bergson():
    return pytest.importorskip("bergson.data", reason="bergson is not installed")


def sketches(rows: int, dim: int = DIM, seed: int = 0) -> Sketches:
    random = np.random.default_rng(seed)
    margin = random.standard_normal(rows)
    return Sketches(random.standard_normal((rows, dim)).astype(np.float32), margin, np.logaddexp(0, -margin))


def names(rows: int) -> list[str]:
    return [f"söurce/{row}" for row in range(rows)]


def assert_same(found: Sketches, truth: Sketches) -> None:
    for name in ("g", "margin", "loss"):
        one, other = getattr(found, name), np.asarray(getattr(truth, name))
        assert one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes(), name


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(5, DIM), (1, 1), (5000, 3), (0, 4)])
def test_round_trip(tmp_path, form, shape):
    truth = sketches(*shape)
    write_sketches(tmp_path / "there", truth, form, ids=names(shape[0]))
    found = read_sketches(tmp_path / "there")
    assert_same(found, truth)
    assert found.ids == names(shape[0])
    assert not (found.g.flags.writeable and found.g.size)
    write_sketches(tmp_path / "nameless", truth, form)
    assert read_sketches(tmp_path / "nameless", form).ids is None


@pytest.mark.parametrize("form", FORMS)
def test_matrices_are_mapped(tmp_path, form):
    write_sketches(tmp_path / "there", sketches(40), form)
    found = read_sketches(tmp_path / "there")
    start = found.g.__array_interface__["data"][0]
    lines = Path("/proc/self/maps").read_text().splitlines()
    areas = [line.split()[0].split("-") for line in lines if line.endswith(str(tmp_path / "there" / MAIN[form]))]
    assert any(int(low, 16) <= start < int(high, 16) for low, high in areas)


@pytest.mark.parametrize("form", ["bergson", "npy", "safetensors"])
def test_rows_that_are_not_finite_travel_as_they_are(tmp_path, form):
    truth = sketches(4)
    truth.g[1, 2], truth.margin[3] = np.nan, np.inf
    write_sketches(tmp_path / "there", truth, form)
    assert_same(read_sketches(tmp_path / "there"), truth)


def test_a_mapped_matrix_is_written_on(tmp_path):
    """And rows of one, which is how a part of a run's is handed over."""
    write_sketches(tmp_path / "a", sketches(50), "npy", ids=names(50))
    found = read_sketches(tmp_path / "a")
    for form in FORMS:
        write_sketches(tmp_path / form, found[::7], form)
        assert_same(read_sketches(tmp_path / form), sketches(50)[::7])


@pytest.mark.parametrize("name", ["float16", "float64", "bfloat16", ">f4"])
def test_other_types_become_float32(tmp_path, name):
    truth = sketches(7).g
    rounded = torch.from_numpy(truth).to(
        {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(name, torch.float64)
    )
    array = rounded.view(torch.uint16).numpy().view("V2") if name == "bfloat16" else rounded.numpy().astype(name)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_sketches(tmp_path / "a.npy").g, rounded.float().numpy())
    if name != ">f4":
        save_file({"features": rounded, "other": torch.zeros(3)}, tmp_path / "a.safetensors")
        found = read_sketches(tmp_path / "a.safetensors")
        np.testing.assert_array_equal(found.g, rounded.float().numpy())
        assert found.g.dtype == np.float32 and np.isnan(found.loss).all()
        write_bergson(tmp_path, rounded.view(torch.uint8).numpy(), {"m": DIM}, name)
        np.testing.assert_array_equal(read_sketches(tmp_path).g, rounded.float().numpy())


def write_bergson(folder: Path, rows: np.ndarray, sizes: dict[str, int], dtype: str, **more: Any) -> None:
    """As bergson 2.5 does."""
    info = {"attribute_tokens": False, "num_items": len(rows), "num_grads": len(rows), "grad_sizes": sizes}
    (folder / "gradients.bin").write_bytes(rows.tobytes())
    (folder / "info.json").write_text(json.dumps({**info, "base_dtype": dtype, **more}, indent=2))


def test_bergsons_modules_are_columns(tmp_path):
    sizes = {"layers.0.q": 2, "layers.0.v": 3, "layers.1.q": 1}
    truth = sketches(5)
    write_sketches(tmp_path / "there", truth, "bergson", modules=sizes)
    assert json.loads((tmp_path / "there" / "info.json").read_text())["grad_sizes"] == sizes
    found = read_sketches(tmp_path / "there")
    assert list(found.modules) == list(sizes)
    np.testing.assert_array_equal(found.g[:, found.modules["layers.0.v"]], truth.g[:, 2:5])
    with pytest.raises(ValueError, match="5 columns together, the sketches 6"):
        write_sketches(tmp_path / "other", truth, "bergson", modules={"a": 5})
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("kind", "text"), [(np.float32, "<f4"), (np.float16, "<f2")])
def test_a_structured_bergson_folder_of_old(tmp_path, kind, text):
    """Before 2.5: one structured type, whose fields lie one after the other."""
    truth = sketches(5).g.astype(kind)
    fields = {"names": ["a", "b"], "formats": [f"(2,){text}", f"(4,){text}"], "itemsize": 6 * np.dtype(kind).itemsize}
    structured = np.zeros(5, np.dtype(fields))
    structured["a"], structured["b"] = truth[:, :2], truth[:, 2:]
    (tmp_path / "gradients.bin").write_bytes(structured.tobytes())
    info = {"num_grads": 5, "dtype": fields, "grad_sizes": {"a": 2, "b": 4}}
    (tmp_path / "info.json").write_text(json.dumps(info))
    np.testing.assert_array_equal(read_sketches(tmp_path).g, truth.astype(np.float32))


def test_bergsons_tokens_add_up_to_samples(tmp_path):
    tokens, offsets = sketches(7).g, np.array([0, 3, 3, 7])
    write_bergson(tmp_path, tokens, {"m": DIM}, "float32", attribute_tokens=True, num_items=3)
    np.save(tmp_path / "offsets.npy", offsets)
    found = read_sketches(tmp_path)
    truth = [tokens[:3].sum(0), np.zeros(DIM), tokens[3:].sum(0)]
    np.testing.assert_allclose(found.g, truth, rtol=1e-6)
    for wrong in ([0, 3, 3, 8], [1, 3, 3, 7], [0, 4, 3, 7], [[0, 7]], [], [0.0, 7.0]):
        np.save(tmp_path / "offsets.npy", wrong)
        with pytest.raises(GradexError, match=r"offsets.npy does not divide the 7 rows"):
            read_sketches(tmp_path)


def test_bergson_reads_what_we_write(tmp_path, bergson):
    truth = sketches(5)
    write_sketches(tmp_path / "there", truth, "bergson", ids=names(5), modules={"a": 2, "b": 4})
    np.testing.assert_array_equal(bergson.load_gradients(tmp_path / "there"), truth.g)
    np.testing.assert_array_equal(bergson.load_module_gradients(tmp_path / "there")["b"], truth.g[:, 2:])
    table = bergson.load_gradient_dataset(tmp_path / "there")
    assert table["id"][:] == names(5) and table["loss"][:] == truth.loss.tolist()
    np.testing.assert_array_equal(np.array(table["gradients"][:], np.float32), truth.g)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_we_read_what_bergson_writes(tmp_path, bergson, name):
    rows = torch.from_numpy(sketches(5).g).to(getattr(torch, name))
    index = bergson.create_index(tmp_path, 5, {"a": 2, "b": 4}, np.dtype(name))
    index.view(np.uint8)[:] = rows.view(torch.uint8).numpy()
    index.flush()
    found = read_sketches(tmp_path)
    np.testing.assert_array_equal(found.g, rows.float().numpy())
    assert found.modules == {"a": slice(0, 2), "b": slice(2, 6)}


def test_trak_keeps_one_minus_p(tmp_path):
    """From which margins and losses come, where no rows are beside it."""
    truth = sketches(5)
    write_sketches(tmp_path / "there", truth, "trak")
    (tmp_path / "there" / "0" / "rows.parquet").unlink()
    found = read_sketches(tmp_path / "there")
    np.testing.assert_allclose(found.loss, truth.loss, rtol=1e-5)
    np.testing.assert_allclose(found.margin, truth.margin, rtol=1e-5, atol=1e-6)


def traker(trak, folder: Path, rows: int, **options: Any):
    from trak.projectors import NoOpProjector

    projector = NoOpProjector(proj_dim=DIM, proj_type="normal", device="cpu")
    model = torch.nn.Linear(DIM, 2)
    options = {"device": "cpu", "projector": projector, "use_half_precision": False, "logging_level": 40} | options
    return trak.TRAKer(model, "image_classification", rows, str(folder), **options)


def test_traker_goes_on_from_what_we_write(tmp_path, trak):
    train, target = sketches(30), sketches(4, seed=1)
    train.g[3, 1] = np.nan
    write_sketches(tmp_path / "there", train, "trak", ids=names(30), targets={"validation": (target, names(4))})
    opened = traker(trak, tmp_path / "there", 30)
    opened.finalize_features()
    scores = np.array(opened.finalize_scores("validation"))
    kept = np.delete(np.arange(30), 3)
    phi = train.g[kept].astype(np.float64)
    inverse = np.linalg.inv(phi.T @ phi)
    truth = phi @ inverse @ target.g.T / abs(inverse).mean() * (1 - np.exp(-train.loss[kept]))[:, None]
    np.testing.assert_allclose(scores[kept], truth, rtol=1e-3, atol=1e-5 * abs(truth).max())
    assert not scores[3].any()
    assert read_sketches(tmp_path / "there" / "0" / "validation_grads.mmap").g.tobytes() == target.g.tobytes()


@pytest.mark.parametrize("half", [False, True])
def test_we_read_what_traker_writes(tmp_path, trak, half):
    opened = traker(
        trak,
        tmp_path,
        8,
        projector=trak.projectors.BasicProjector(14, DIM, 0, "normal", "cpu"),
        use_half_precision=half,
    )
    opened.load_checkpoint(opened.model.state_dict(), model_id=0)
    batch = [torch.randn(8, DIM), torch.tensor([0, 1] * 4)]
    opened.featurize([part[:5] for part in batch], inds=np.arange(5))
    with pytest.raises(GradexError, match="5 of 8 rows are featurised"):
        read_sketches(tmp_path)
    opened.featurize([part[5:] for part in batch], inds=np.arange(5, 8))
    found = read_sketches(tmp_path)
    np.testing.assert_array_equal(found.g, np.array(opened.saver.current_store["grads"], np.float32))
    loss = torch.nn.functional.cross_entropy(opened.model(batch[0]), batch[1], reduction="none").detach().numpy()
    np.testing.assert_allclose(found.loss, loss, rtol=0.02 if half else 1e-5)
    np.testing.assert_allclose(np.logaddexp(0, -found.margin), loss, rtol=0.02 if half else 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_whatever_is_cut_short_is_named(tmp_path, form):
    write_sketches(tmp_path, sketches(5), form, ids=names(5))
    rows = "0/rows.parquet" if form == "trak" else "rows.parquet"
    for name in (MAIN[form], *OTHERS[form], rows):
        whole = (tmp_path / name).read_bytes()
        for size in {0, 1, 7, 11, len(whole) // 3, len(whole) // 2, len(whole) - 2}:
            (tmp_path / name).write_bytes(whole[:size])
            with pytest.raises(GradexError) as caught:
                read_sketches(tmp_path, form)
            assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
        (tmp_path / name).unlink()
        if name != rows:
            with pytest.raises(GradexError, match=str(tmp_path)):
                read_sketches(tmp_path, form)
        (tmp_path / name).write_bytes(whole)
    assert_same(read_sketches(tmp_path), sketches(5))


class Evil:
    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def evil_npy(path: Path) -> None:
    np.save(path, np.array([[Evil()]], object), allow_pickle=True)


FAULTS = {
    "pickled objects, which are never read": ("a.npy", evil_npy),
    "has 186 bytes where": ("a.npy", lambda path: path.write_bytes(npy_bytes(np.zeros((2, 3))) + b"0123456789")),
    "several fields": ("a.npy", lambda path: np.save(path, np.zeros(2, [("漢", "f4")]))),
    "array [4]; sketches are a matrix": ("a.npy", lambda path: np.save(path, np.zeros(4))),
    "holds int64; sketches are float16": ("a.npy", lambda path: np.save(path, np.zeros((2, 2), np.int64))),
    "pickles (.pt, .pth, .pkl) are never read": ("a.pt", lambda path: path.write_bytes(pickle.dumps(1))),
    "no whole safetensors file": ("a.safetensors", lambda path: path.write_bytes(pickle.dumps(1))),
    "no tensor g, and 2 matrices": ("a.safetensors", lambda path: save(path, a=torch.ones(2, 2), b=torch.ones(2, 2))),
    "no tensor g, and 0 matrices": ("a.safetensors", lambda path: save(path, a=torch.ones(2))),
    "h is [3] where the sketches have 2 rows": (
        "a.safetensors",
        lambda path: save(path, g=torch.ones(2, 2), h=torch.ones(3)),
    ),
    "holds complex64": ("a.safetensors", lambda path: save(path, g=torch.ones(2, 2) * 1j)),
    "no such file or folder": ("nothing", lambda path: None),
}


def npy_bytes(array: np.ndarray) -> bytes:
    import io

    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def save(path: Path, **tensors: torch.Tensor) -> None:
    save_file(tensors, path)


@pytest.mark.parametrize("words", FAULTS)
def test_a_wrong_file_is_said_to_be_so(tmp_path, words):
    name, make = FAULTS[words]
    make(tmp_path / name)
    with pytest.raises(GradexError) as caught:
        read_sketches(tmp_path / name)
    assert words in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"base_dtype": "int8"}, "holds int8; sketches are"),
        ({"base_dtype": "nonsense"}, "holds nonsense; sketches are"),
        ({"num_grads": 6}, "has 120 bytes where 6 rows of 6 float32 are 144"),
        ({"grad_sizes": {"a": 6, "b": 1}}, "where 5 rows of 7 float32 are 140"),
        ({"grad_sizes": {"a": 7, "b": -1}}, "are no sizes"),
        ({"grad_sizes": {}}, "are no sizes"),
        ({"grad_sizes": None}, "lacks what bergson writes there"),
        ({"num_grads": "five"}, "lacks what bergson writes there"),
    ],
)
def test_a_bergson_folder_that_contradicts_itself(tmp_path, more, words):
    write_bergson(tmp_path, sketches(5).g, {"a": DIM}, "float32", **more)
    with pytest.raises(GradexError) as caught:
        read_sketches(tmp_path)
    assert words in str(caught.value)


def test_of_several_stores_one_must_be_named(tmp_path):
    for shard in ("shard_0", "shard_1"):
        (tmp_path / "bergson" / shard).mkdir(parents=True)
        write_bergson(tmp_path / "bergson" / shard, sketches(5).g, {"a": DIM}, "float32")
    with pytest.raises(GradexError, match=r"holds 2 folders of gradients; read each alone, such as .*shard_0"):
        read_sketches(tmp_path / "bergson")
    write_sketches(tmp_path / "trak", sketches(5), "trak")
    (tmp_path / "trak" / "0").rename(tmp_path / "trak" / "9")
    write_sketches(tmp_path / "more", sketches(5, seed=2), "trak")
    (tmp_path / "more" / "0").rename(tmp_path / "trak" / "10")
    with pytest.raises(GradexError, match=r"holds the checkpoints 9, 10; read one, such as .*9"):
        read_sketches(tmp_path / "trak")
    assert_same(read_sketches(tmp_path / "trak" / "10"), sketches(5, seed=2))


def test_rows_of_another_store_are_found_out(tmp_path):
    write_sketches(tmp_path / "a", sketches(5), "npy")
    write_sketches(tmp_path / "b", sketches(6), "npy")
    (tmp_path / "b" / "rows.parquet").replace(tmp_path / "a" / "rows.parquet")
    with pytest.raises(GradexError, match="has 6 rows, the sketches beside it 5"):
        read_sketches(tmp_path / "a")


def test_nothing_is_written_over_by_chance(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(GradexError, match="holds no sketches that were written here"):
            write_sketches(tmp_path / "mine", sketches(5), "npy", overwrite=overwrite)
    write_sketches(tmp_path / "there", sketches(5), "npy")
    with pytest.raises(GradexError, match="overwrite=True"):
        write_sketches(tmp_path / "there", sketches(3), "trak")
    write_sketches(tmp_path / "there", sketches(3), "trak", overwrite=True)
    assert_same(read_sketches(tmp_path / "there"), sketches(3))


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    write_sketches(tmp_path / "there", sketches(5), "npy")
    with pytest.raises(TypeError):
        write_sketches(tmp_path / "there", sketches(3), "npy", overwrite=True, modules={"a": 1})
    with pytest.raises(ValueError, match=r"ids \[n\]"):
        write_sketches(tmp_path / "there", sketches(3), "npy", overwrite=True, ids=names(2))
    with pytest.raises(ValueError, match="form must be one of"):
        write_sketches(tmp_path / "other", sketches(3), "csv")
    assert_same(read_sketches(tmp_path / "there"), sketches(5))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
