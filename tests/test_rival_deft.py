"""DEFT: states against a pass over each row alone, neighbours against a loop over all pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import runs
import torch
from tiny import MODELS, adapted, random_examples

from gradex_fast.baselines import RIVALS
from gradex_fast.baselines.deft import deft, retrievals
from gradex_fast.baselines.features import mean_states
from gradex_fast.model import load_model


def alone(model, example) -> np.ndarray:
    """The mean of the last hidden state, from the whole model's own list of states."""
    ids = torch.as_tensor(example.input_ids)[None].long()
    with torch.no_grad():
        return model.eval()(input_ids=ids, output_hidden_states=True).hidden_states[-1][0].double().mean(0).numpy()


def neighbours(rows, queries, k: int) -> list[int]:
    """How often each row is among a query's k nearest, by sorting pairs."""

    def cosine(a, b) -> float:
        lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0

    counts = [0] * len(rows)
    for query in queries:
        order = sorted(range(len(rows)), key=lambda i: (-cosine(rows[i], query), i))
        for i in order[:k]:
            counts[i] += 1
    return counts


@pytest.mark.parametrize("adapter", ["full", "all"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_states_are_those_of_single_rows(name, adapter):
    model, examples = adapted(name, adapter).train(), random_examples([9, 3, 16, 4, 9, 1])
    found = mean_states(model, examples, pad_id=0, batch_tokens=40)
    assert model.training
    np.testing.assert_allclose(found, [alone(model, example) for example in examples], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_retrievals_are_brute_force(k):
    draw = np.random.default_rng(k)
    rows, queries = draw.normal(size=(7, 4)), draw.normal(size=(5, 4))
    rows[2], rows[5] = 0, 3 * rows[1]  # no length; a tie
    assert retrievals(rows, queries, k).tolist() == neighbours(rows.tolist(), queries.tolist(), k)


def test_the_first_of_equally_near_rows_is_retrieved():
    rows = np.array([[0.0, 1.0], [1.0, 0.0]] * 50)
    found = retrievals(rows, np.array([[1.0, 0.0]]), 7)
    assert np.flatnonzero(found).tolist() == [1, 3, 5, 7, 9, 11, 13]


@pytest.mark.parametrize(("tree", "target"), [(runs.lora_tree, True), (runs.classifier_tree, False)])
def test_scores_are_the_share_of_retrievals(inputs, tmp_path, tree, target):
    plan = tree(inputs, tmp_path / "run")
    plan["data"]["sources"][1]["limit"] = 1
    if not target:
        del plan["data"]["target"]["train"]
    run = runs.run(plan, until="prepare")
    model = load_model(run.recipe.model, 0, "cpu")
    states = {s.name: [alone(model, e) for e in s.examples] for s in (*run.corpus.sources, run.corpus.train)}
    queries = [*states.pop(run.corpus.train.name), *(alone(model, e) for e in run.corpus.validation.examples)]
    rows = [state for source in states.values() for state in source]
    for k in (None, 2, 1000):
        taken = min(k or 3, len(rows))  # 25 rows: a tenth, rounded up
        counts = np.split(np.array(neighbours(rows, queries, taken)), np.cumsum([len(s) for s in states.values()])[:-1])
        expected = [-part.sum() / (len(part) * len(queries)) for part in counts]
        np.testing.assert_allclose(deft(run, **({"neighbours": k} if k else {})).score, expected)
    cost = RIVALS["deft"](run).cost
    assert (cost.forward_rows, cost.backward_rows) == (len(rows) + len(queries), 0)


def test_states_of_the_trained_model_are_another_rival(inputs, tmp_path):
    run = runs.run(runs.lora_tree(inputs, tmp_path / "run"), until="meta")
    model = load_model(run.recipe.model, 0, "cpu", trained=run.path / "meta")
    examples = [e for s in (*run.corpus.sources, run.corpus.train, run.corpus.validation) for e in s.examples]
    states = [alone(model, example) for example in examples]
    counts = np.array(neighbours(states[:32], states[32:], 4)).reshape(4, 8)
    found = RIVALS["deft_meta"](run)
    np.testing.assert_allclose(found.selection.scores, -counts.sum(1) / (8 * len(states[32:])))
    assert found.needs == ("meta",)


def test_every_model_of_the_tests_has_a_backbone():
    examples = random_examples([4, 7])
    for name in set(MODELS) - {"t5"}:
        assert mean_states(MODELS[name](), examples, pad_id=0, batch_tokens=1).shape == (2, 16)
