"""The example of TRAK's scores against their definition, and against traker itself where it is installed."""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from oracle import oracle, sketched
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "examples" / "attribution"))
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import trak_scores

pytestmark = pytest.mark.usefixtures("one_thread")
TRAIN, TARGET, DIM = (0, 1), (2,), 6
ROWS = 8


@pytest.fixture
def trak():
    return pytest.importorskip("trak", reason="traker is not installed")


def batches(name: str, seeds: Sequence[int]) -> list[trak_scores.Batch]:
    return [tiny.random_batch(name, samples=ROWS, seed=seed) for seed in seeds]


def by_definition(checkpoints: Sequence[nn.Module], name: str) -> np.ndarray:
    """Float64, a backward pass a row: mean of Φ (ΦᵀΦ)⁻¹ φ_target / mean |(ΦᵀΦ)⁻¹|, times the mean of 1 - p."""
    found, misses = [], []
    for seed, model in enumerate(checkpoints):
        exact = copy.deepcopy(model).double()
        parts = [[oracle(exact, batch, "sequence") for batch in batches(name, seeds)] for seeds in (TRAIN, TARGET)]
        phi, target = (np.concatenate([sketched(g, DIM, seed) for g, _, _ in part]) for part in parts)
        inverse = np.linalg.inv(phi.T @ phi)
        found.append(phi @ inverse @ target.T / np.mean(np.abs(inverse)))
        misses.append(1 - np.exp(-np.concatenate([loss for _, _, loss in parts[0]])))
    return np.mean(found, 0) * np.mean(misses, 0)[:, None]


def perturbed(model: nn.Module, seed: int) -> nn.Module:
    """Another checkpoint."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return other


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_scores_are_their_definition(name):
    model = tiny.with_lora(tiny.MODELS[name](), tiny.SOME[name])
    checkpoints = [model, perturbed(model, 1)]
    found = trak_scores.trak_scores(checkpoints, batches(name, TRAIN), batches(name, TARGET), dim=DIM)
    truth = by_definition(checkpoints, name)
    assert found.shape == (len(TRAIN) * ROWS, len(TARGET) * ROWS)
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-4 * abs(truth).max())


def test_the_example_finds_wrong_labels(capsys):
    trak_scores.main()
    assert int(re.search(r", (\d+) have", capsys.readouterr().out).group(1)) >= 15  # by chance 2


class Logits(nn.Module):
    """What traker's task wants: logits, from a mask that vmap can take (transformers asks whether all of it is on)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids, token_type_ids, attention_mask) -> torch.Tensor:
        lowest = torch.finfo(torch.float32).min
        mask = torch.where(attention_mask[:, None, None] > 0, 0.0, lowest).expand(-1, 1, input_ids.shape[1], -1)
        return self.model(input_ids, token_type_ids=token_type_ids, attention_mask=mask).logits


def by_traker(trak, checkpoints: Sequence[nn.Module], folder: Path) -> np.ndarray:
    """`TRAKer`'s own text classification, features and scores; P is ours."""
    import rival_trak

    model = Logits(copy.deepcopy(checkpoints[0]))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    options = {"device": "cpu", "use_half_precision": False, "grad_wrt": names, "logging_level": 40}
    projector = rival_trak.OurProjection(DIM, prefix="model.")
    traker = trak.TRAKer(model, "text_classification", len(TRAIN) * ROWS, str(folder), projector=projector, **options)
    order = ("input_ids", "token_type_ids", "attention_mask", "labels")
    train, target = (
        [
            [(batch | {"token_type_ids": 0 * batch["input_ids"]})[key] for key in order]
            for batch in batches("bert", seeds)
        ]
        for seeds in (TRAIN, TARGET)
    )
    states = [Logits(checkpoint).state_dict() for checkpoint in checkpoints]
    for model_id, state in enumerate(states):
        traker.load_checkpoint(state, model_id=model_id)
        for batch in train:
            traker.featurize(batch, num_samples=ROWS)
    traker.finalize_features()
    for model_id, state in enumerate(states):
        traker.start_scoring_checkpoint("target", state, model_id=model_id, num_targets=len(TARGET) * ROWS)
        for batch in target:
            traker.score(batch, num_samples=ROWS)
    return np.array(traker.finalize_scores("target"))


def test_traker_gives_the_same_scores(trak, tmp_path):
    """Up to one factor for all: its features are divided by √p."""
    model = tiny.with_lora(tiny.bert(attn_implementation="eager"), tiny.SOME["bert"])
    checkpoints = [model, perturbed(model, 1)]
    found = trak_scores.trak_scores(checkpoints, batches("bert", TRAIN), batches("bert", TARGET), dim=DIM)
    truth = by_traker(trak, checkpoints, tmp_path)
    factor = (found * truth).sum() / (truth**2).sum()
    np.testing.assert_allclose(found, factor * truth, rtol=0, atol=1e-4 * abs(found).max())


def test_the_benchmark_comes_to_its_table(trak, tmp_path, monkeypatch):
    import bench_attribution

    monkeypatch.setattr(sys, "argv", ["bench", "--quick", "--threads", "1", "--out", str(tmp_path / "a.json")])
    bench_attribution.main()
    report = json.loads((tmp_path / "a.json").read_text())
    rows = {row["way"]: row for row in report["tables"]["One batch, d = 32"]}
    assert rows.keys() == {"plain", "gradex_fast", *bench_attribution.WAYS}
    assert rows["TRAKer, LoRA's gradients only, our P"]["features"] < 1e-5
    assert rows["TRAKer, LoRA's gradients only"]["features"] < 0.6  # two rows' inner products at d = 32
    assert "| TRAKer, as it comes |" in (tmp_path / "a.md").read_text()
