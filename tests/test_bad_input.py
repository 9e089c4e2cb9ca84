"""Every mistake a user makes on the command line: one line that names it, exit status 2, and nothing lost."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import runs

from gradex_fast.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = [{"prompt": "ab=", "completion": "ab"}, {"prompt": "abc=", "completion": "abc"}]


@pytest.fixture(scope="module")
def original(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is finished but for its report; copied, never written."""
    output = tmp_path_factory.mktemp("original") / "run"
    runs.run(runs.language_tree(inputs, output), until="finetune")
    return output


@pytest.fixture
def folder(inputs: Path, original: Path, tmp_path: Path) -> Path:
    """A user's folder: data, models, recipe.yaml, and a run."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    shutil.copytree(original, tmp_path / "run")
    runs.write_recipe(tmp_path / "recipe.yaml", runs.language_tree(tmp_path, tmp_path / "run"))
    return tmp_path


def refused(capsys: pytest.CaptureFixture, folder: Path, *overrides: str) -> str:
    """The one line that ``gradex-fast run recipe.yaml`` prints; what lies in the run is as it was."""
    before = runs.digests(folder / "run")
    status = main(["run", str(folder / "recipe.yaml"), *overrides, "--quiet"])
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert re.fullmatch(r"gradex-fast: [^\n]+\n", err), err
    assert "Traceback" not in err
    assert runs.digests(folder / "run") == before
    return err.removeprefix("gradex-fast: ").strip()


def write(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


DATA = {
    "an empty source": ([], "source 'copy': copy.jsonl has no rows"),
    "no such column": ([*ROWS, {"prompt": "a="}], "copy.jsonl line 3: no column 'completion' (columns: prompt)"),
    "only long rows": (
        [{"prompt": "a" * 40, "completion": "b"}] * 3,
        "source 'copy': all 3 rows are longer than max_length=32 (3 cut); raise data.max_length or remove the source",
    ),
    "columns of no known format": (
        [{"question": "a", "answer": "b"}],
        "copy.jsonl: columns question, answer are of no",
    ),
    "a line that is not JSON": (None, "copy.jsonl line 1, character 1: Expecting value"),
}


@pytest.mark.parametrize("case", DATA)
def test_rows(capsys, folder, case):
    rows, message = DATA[case]
    (folder / "copy.jsonl").write_text("oops") if rows is None else write(folder / "copy.jsonl", rows)
    assert message in refused(capsys, folder)


def test_validation_rows_in_training(capsys, folder):
    held_out = json.loads((folder / "validation.jsonl").read_text().splitlines()[2])
    write(folder / "copy.jsonl", [*ROWS, held_out])
    message = refused(capsys, folder)
    assert re.match(r"\d+ training rows? equals? a validation or test row, such as copy/2 and ", message)
    assert "set data.on_overlap=drop" in message


def test_an_unknown_model_class(capsys, folder):
    config = json.loads((folder / "gpt2" / "config.json").read_text())
    (folder / "gpt2" / "config.json").write_text(json.dumps({**config, "model_type": "nonsense"}))
    assert re.match(r"model.name '.*gpt2'.*nonsense", refused(capsys, folder))


def test_a_run_of_another_model(capsys, folder):
    settings = ("model.adapter=lora", "model.targets=[c_attn]")
    assert "manifest.json was made with model.adapter = 'full', this run has 'lora'" in refused(
        capsys, folder, *settings
    )


def test_an_output_folder_that_is_no_run(capsys, folder):
    (folder / "run" / "manifest.json").unlink()
    assert refused(capsys, folder).endswith("run is not empty and holds no run; choose another output folder")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("model.nane=x", "recipe: unknown key 'model.nane'; did you mean 'name'?"),
        ("model.name=[", "override 'model.name=[': the value is not YAML: "),
        ("sketch.parameters='('", "recipe: sketch.parameters: Value error, '(' is no regular expression: "),
        ("select.keep=5", "select.keep is 5, more than the number of sources (4)"),
        ("device=cuda:99", "recipe: device: Input should be 'auto', 'cpu' or 'cuda'"),
        ("data.folder=nowhere", "cannot find file nowhere/copy.jsonl; relative paths start at data.folder"),
    ],
)
def test_settings(capsys, folder, setting, message):
    assert refused(capsys, folder, setting).startswith(message)


@pytest.mark.parametrize("content", [b"model: {name: gpt2\ndata: x", b"- a", b"\xff\xfe\x00m", b""])
def test_a_recipe_that_is_none(capsys, folder, content):
    (folder / "recipe.yaml").write_bytes(content)
    assert re.match("cannot read recipe .*recipe.yaml: |recipe .* must be a mapping", refused(capsys, folder))


def test_rows_longer_than_the_models_positions(capsys, folder):
    write(folder / "copy.jsonl", [*ROWS, {"prompt": "a" * 40, "completion": "b"}])
    message = refused(capsys, folder, "data.max_length=64")
    assert re.fullmatch(r"a row has 42 tokens, but '.*gpt2' has 32 positions; set data.max_length=32", message)


def test_no_parameter_to_sketch(capsys, folder):
    shutil.rmtree(folder / "run")
    status = main(["run", str(folder / "recipe.yaml"), "sketch.parameters=lora", "--quiet"])
    assert (status, (folder / "run" / "meta").exists()) == (2, False)
    assert "sketch.parameters 'lora' is in no parameter's name; one is " in capsys.readouterr().err


def test_a_loss_that_is_not_finite(capsys, folder):
    shutil.rmtree(folder / "run")
    settings = ["train.learning_rate=1e30", "train.max_grad_norm=1e30"]
    assert main(["run", str(folder / "recipe.yaml"), *settings, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"gradex-fast: the training loss is (nan|inf) at step \d+: lower train.learning_rate .*\n", err)
    assert not (folder / "run" / "meta").exists()
