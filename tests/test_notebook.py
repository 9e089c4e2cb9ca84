"""The example notebook runs from its first cell to its last; here with fewer and smaller groups, to save time."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "noisy_addition.ipynb"
SIZE = "size = DemoSize(anchors=6)"
SMALL = "size = DemoSize(groups=6, rows=10, validation=20, steps=30, anchor_steps=4, anchors=3, subsets=40, dim=20)"


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    setting = notebook.cells[1]
    assert SIZE in setting.source
    setting.source = setting.source.replace(SIZE, SMALL) + f"\nimport tempfile\ntempfile.tempdir = {str(tmp_path)!r}"
    NotebookClient(notebook, timeout=300).execute(cwd=str(tmp_path))
    text = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "60 training rows, each 20 numbers" in text and "trained on selected" in text
    figures = [o for cell in notebook.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(figures) == 3


def test_no_output_is_committed() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert len(notebook.cells) == 12
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
