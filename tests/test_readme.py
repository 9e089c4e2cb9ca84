"""README's example code runs as it stands, and its recipe is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import runs
import torch
import yaml

from gradex_fast.batch import collate
from gradex_fast.model import load_model
from gradex_fast.recipe import Recipe

README = Path(__file__).parents[1] / "README.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"README.md has no {language} block"
    return found.group(1)


def test_the_recipe_loads(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(block("yaml"))
    recipe = Recipe.load(tmp_path / "recipe.yaml")
    assert [source.path for source in recipe.data.sources] == ["alpaca.jsonl", "code.jsonl"]


def test_the_python_lines_run(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = runs.language_tree(inputs, tmp_path / "run")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.build(tree)
    inputs_, grads = torch.randn(2, 3, 5), torch.randn(2, 3, 4)
    finished = runs.run(tree, until="prepare")
    examples = finished.corpus.sources[0].examples[:2]
    batch = collate(examples, finished.pad_id)
    joined = {key: [token for e in examples for token in getattr(e, key).tolist()] for key in ("input_ids", "labels")}
    packed_row = {key: torch.tensor([tokens]) for key, tokens in joined.items()}
    packed_row["position_ids"] = torch.cat([torch.arange(len(e.input_ids)) for e in examples])[None]
    model = load_model(recipe.model, 0, "cpu")
    rows, valid = torch.randn(20, 5), torch.randn(7, 5)
    regressions = {"features": rows, "margins": rows[:, 0], "group_ptr": [0, 8, 20], "subsets": [[0], [1], [0, 1]]}
    validation = {"valid_features": valid, "valid_margins": valid[:, 0]}
    scope = {
        "model": model,
        "batch": batch,
        "packed_row": packed_row,
        "inputs": inputs_,
        "grads": grads,
        **regressions,
        **validation,
    }
    exec(block("python"), scope)
    assert set(scope["chosen"]) <= set(finished.corpus.names) and len(scope["f"].loss) == 2
    assert abs(scope["packed"].g - scope["sketches"].g).max() < 1e-4 * abs(scope["packed"].g).max()
    assert scope["sketches"].g.shape == (2, 100) and scope["w"].shape == (2, 20)
    assert scope["x"].shape == (3, 5) and scope["losses"].shape == (3,)
