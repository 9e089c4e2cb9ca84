"""LESS against its definition: gradients of single rows by plain autograd, Adam in NumPy, cosines in float64."""

from __future__ import annotations

import numpy as np
import pytest
import runs
import torch
from oracle import oracle
from tiny import adapted, random_examples

from gradex_fast.baselines import RIVALS
from gradex_fast.baselines.adam import Moments, direction, moments
from gradex_fast.baselines.gradients import gradients
from gradex_fast.baselines.less import _mean, less, less_sgd
from gradex_fast.batch import collate
from gradex_fast.errors import GradexError
from gradex_fast.model import load_model
from gradex_fast.modules import trainable
from gradex_fast.reference.sketch import project

TREES = {"full": runs.language_tree, "lora": runs.lora_tree, "classifier": runs.classifier_tree}
BETAS, EPSILON = (0.9, 0.999), 1e-8


@pytest.fixture(scope="module", params=TREES)
def run(request, inputs, tmp_path_factory):
    """Its second source has one row; the batches of its training are of 5 rows, cut to norm 1."""
    tree = TREES[request.param](inputs, tmp_path_factory.mktemp("less") / "run", train={"batch_size": 5})
    tree["data"]["sources"][1]["limit"] = 1
    return runs.run(tree, until="sketch")


def row_gradients(run, examples) -> np.ndarray:
    """∇ℓ of each row at θ*, float64 [n, p]."""
    model = load_model(run.recipe.model, 0, "cpu", trained=run.path / "meta")
    return np.concatenate([np.concatenate(list(gradient_of(model, e).values()), axis=1) for e in examples])


def gradient_of(model, example) -> dict[str, np.ndarray]:
    return oracle(model, collate([example], 0), "loss")[0]


def cosines(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean cosine of each row with the others, pair by pair."""
    pairs = [[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in others] for a in rows]
    return np.mean(pairs, axis=1)


def adam_directions(run, rows: np.ndarray, everything: np.ndarray) -> np.ndarray:
    """Γ of every row, from moments of one pass over all rows in batches (LESS, §3.1)."""
    order = np.random.default_rng(run.recipe.seed).permutation(len(everything))
    m, v, steps = np.zeros(rows.shape[1]), np.zeros(rows.shape[1]), 0
    for start in range(0, len(order), 5):
        g = everything[order[start : start + 5]].mean(0)
        g = g * min(1, run.recipe.train.max_grad_norm / (np.linalg.norm(g) + 1e-6))
        m, v, steps = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g**2, steps + 1
    m = (BETAS[0] * m + (1 - BETAS[0]) * rows) / (1 - BETAS[0] ** (steps + 1))
    v = (BETAS[1] * v + (1 - BETAS[1]) * rows**2) / (1 - BETAS[1] ** (steps + 1))
    return m / np.sqrt(v + EPSILON)


def by_source(run, values: np.ndarray) -> list[float]:
    ends = np.cumsum([len(source.examples) for source in run.corpus.sources])
    return [-part.mean() for part in np.split(values[: ends[-1]], ends[:-1])]


@pytest.mark.parametrize("adapter", ["full", "all"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_gradients_are_those_of_single_rows_and_of_their_mean(name, adapter):
    model, examples = adapted(name, adapter), random_examples([9, 3, 16, 4])
    if name == "bert":
        examples = [e.__class__(e.id, e.input_ids, e.labels[-1:] % 3, e.digest) for e in examples]
    exact = [np.concatenate(list(gradient_of(model, e).values()), axis=1)[0] for e in examples]
    found = [g.numpy() for g in gradients(model, [[e] for e in examples], pad_id=0)]
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-5 * np.abs(exact).max())
    (mean,) = gradients(model, [examples], pad_id=0)
    np.testing.assert_allclose(mean.numpy(), np.mean(exact, 0), rtol=1e-3, atol=1e-5 * np.abs(exact).max())


def test_a_parameter_that_no_row_reaches_has_gradient_zero():
    model = adapted("gpt2", "full")
    model.unused = torch.nn.Parameter(torch.ones(3))
    (found,) = gradients(model, [random_examples([5])], pad_id=0)
    names = list(trainable(model))
    sizes = [p.numel() for p in trainable(model).values()]
    assert not found.split(sizes)[names.index("unused")].any() and found.any()


def test_moments_are_torchs_adam():
    draw = torch.Generator().manual_seed(0)
    steps = torch.randn(7, 11, generator=draw)
    parameter = torch.nn.Parameter(torch.zeros(11))
    optimiser = torch.optim.Adam([parameter], lr=0.0)
    for step in steps:
        parameter.grad = step * min(1.0, 2.0 / (step.norm() + 1e-6))
        optimiser.step()
    found, state = moments(iter(steps), 11, max_norm=2.0), optimiser.state[parameter]
    torch.testing.assert_close(found.mean, state["exp_avg"])
    torch.testing.assert_close(found.square, state["exp_avg_sq"])
    assert found.steps == 7


def test_the_direction_is_adams_next_step():
    """torch has ε outside the root, LESS inside; both are far below gradients of size 1."""
    draw = torch.Generator().manual_seed(1)
    before, last = torch.randn(5, 9, generator=draw), torch.randn(9, generator=draw)
    parameter = torch.nn.Parameter(torch.zeros(9))
    optimiser = torch.optim.Adam([parameter], lr=1.0)
    for step in before:
        parameter.grad = step.clone()
        optimiser.step()
    stood = parameter.detach().clone()
    parameter.grad = last.clone()
    optimiser.step()
    found = direction(last, moments(iter(before), 9, max_norm=1e9))
    torch.testing.assert_close(-found, parameter.detach() - stood, rtol=1e-4, atol=1e-5)


def test_without_a_history_the_direction_is_nearly_the_sign():
    gradient = torch.tensor([3.0, -0.5, 1e-12])
    found = direction(gradient, Moments(torch.zeros(3), torch.zeros(3), 0))
    torch.testing.assert_close(found, torch.tensor([1.0, -1.0, 1e-8]), rtol=1e-5, atol=1e-9)


def test_less_is_the_definition(run):
    sources = [e for source in run.corpus.sources for e in source.examples]
    everything, target = row_gradients(run, run.examples()), row_gradients(run, run.corpus.validation.examples)
    steps = adam_directions(run, everything[: len(sources)], everything)
    found = less(run)
    np.testing.assert_allclose(found.score, by_source(run, cosines(steps, target)), rtol=1e-3, atol=1e-5)
    assert np.isnan(found.low[1]) and np.isfinite(found.low[[0, 2, 3]]).all()
    rows = len(everything) + len(sources) + len(target)
    assert (found.cost.forward_rows, found.cost.backward_rows) == (rows, rows)


def test_projected_less_is_the_definition_times_random_signs(run):
    sources = [e for source in run.corpus.sources for e in source.examples]
    everything, target = row_gradients(run, run.examples()), row_gradients(run, run.corpus.validation.examples)
    steps = adam_directions(run, everything[: len(sources)], everything)
    plan = {"name": "less", "seed": 0, "dim": 40, "distribution": "rademacher"}
    expected = by_source(run, cosines(project(steps, **plan), project(target, **plan)))
    np.testing.assert_allclose(less(run, dim=40).score, expected, rtol=1e-3, atol=1e-4)


def test_less_sgd_is_the_cosine_of_projected_gradients_of_the_loss(run):
    model = load_model(run.recipe.model, 0, "cpu", trained=run.path / "meta")

    def sketched(examples) -> np.ndarray:
        named = [gradient_of(model, example) for example in examples]
        plan = {"seed": 0, "dim": 16}
        return np.concatenate([sum(project(g, name=name, **plan) for name, g in row.items()) for row in named])

    expected = cosines(sketched(run.examples()), sketched(run.corpus.validation.examples))
    found = RIVALS["less_sgd"](run)
    np.testing.assert_allclose(found.selection.scores, by_source(run, expected), rtol=1e-3, atol=1e-4)
    assert found.cost.forward_rows == 0 and found.needs == ("meta", "sketch")


def test_less_sgd_refuses_another_margin(inputs, tmp_path):
    run = runs.run(runs.language_tree(inputs, tmp_path / "run", sketch={"margin": "token"}), until="sketch")
    with pytest.raises(GradexError, match=r"sketch\.margin = sequence, not token"):
        less_sgd(run)


def test_validation_rows_that_are_not_finite_are_left_out():
    rows = [torch.tensor([1.0, 2.0]), torch.tensor([torch.nan, 1.0]), torch.tensor([3.0, 0.0])]
    assert _mean(iter(rows)).tolist() == [2.0, 1.0]
    with pytest.raises(GradexError, match="no validation row has a finite gradient"):
        _mean(iter(rows[1:2]))
