"""Every figure of a diagnosis, derived again by hand from the run that it is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diagnoses import diagnosed, estimated, fine_tuned, finished, meta, sketched, tree, validation_loss

from gradex_fast import kernels, metrics
from gradex_fast.diagnose import Diagnosis
from gradex_fast.diagnose.curvature import copies
from gradex_fast.modules import trainable
from gradex_fast.pipeline import Run
from gradex_fast.reference import solve as reference
from gradex_fast.sketch import Sketcher, sketch_examples

pytestmark = pytest.mark.usefixtures("one_thread")
Diagnosed = tuple[Diagnosis, Run]


@pytest.fixture(scope="module", params=["full", "lora", "classifier"])
def both(request: pytest.FixtureRequest, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Diagnosed:
    recipe = tree(request.param, inputs, tmp_path_factory.mktemp("run") / request.param)
    return diagnosed(recipe), finished(recipe)


def random_rows(found: Diagnosis) -> list:
    return [row for row in found.parts["truth"].rows if row["kind"] == "random"]


def test_the_truth_is_the_loss_after_fine_tuning_from_the_meta_initialisation(both, tmp_path):
    found, run = both
    rows = found.parts["truth"].rows
    assert len({tuple(row["sources"]) for row in random_rows(found)}) == len(random_rows(found))
    for index, row in enumerate([rows[0], rows[-1]]):
        model = fine_tuned(run, row["sources"], tmp_path / str(index))
        assert row["truth"] == pytest.approx(validation_loss(run, model), rel=1e-6)
    estimates = estimated(run, [row["sources"] for row in rows], 10.0, dim=16)
    np.testing.assert_allclose([row["estimate"] for row in rows], estimates, rtol=1e-5)


def test_the_path_is_that_of_forward_selection(both):
    found, run = both
    path = [row["sources"] for row in found.parts["truth"].rows if row["kind"] == "path"]
    assert [len(names) for names in path] == list(range(1, len(path) + 1)) and path
    for before, after in zip([[], *path], path, strict=False):
        moves = [sorted([*before, name], key=run.corpus.names.index) for name in run.corpus.names if name not in before]
        assert after == moves[int(np.argmin(estimated(run, moves, 10.0, dim=16)))]


def test_each_subset_is_calibrated_by_the_others(both):
    found, _ = both
    rows = random_rows(found)
    x, y = (np.array([row[key] for row in rows]) for key in ("estimate", "truth"))
    for index, row in enumerate(rows):
        others = np.arange(len(rows)) != index
        slope, intercept = np.polyfit(x[others], y[others], 1)
        expected = intercept + slope * x[index] if slope > 0 else y[others].mean()
        assert row["calibrated"] == pytest.approx(expected, rel=1e-6)
    summary = found.parts["truth"].summary
    assert summary[0]["calibrated_error"] == pytest.approx(
        sum((row["calibrated"] - row["truth"]) ** 2 for row in rows) / sum(y**2)
    )
    slope, intercept = np.polyfit(x, y, 1)
    for row in found.parts["truth"].rows[len(rows) :]:
        expected = intercept + slope * row["estimate"] if slope > 0 else y.mean()
        assert row["calibrated"] == pytest.approx(expected, rel=1e-6)
    path = np.array([row["truth"] for row in found.parts["truth"].rows[len(rows) :]])
    assert summary[1]["constant_error"] == pytest.approx(np.square(path - y.mean()).sum() / np.square(path).sum())


def test_a_dimensions_figures_are_those_of_a_pass_at_it(both):
    found, run = both
    names, truth = zip(*((row["sources"], row["truth"]) for row in random_rows(found)), strict=True)
    assert [row["dim"] for row in found.parts["dim"].rows] == [8, 16, 24]
    for row in found.parts["dim"].rows:
        expected = metrics.agreement(estimated(run, names, 10.0, dim=row["dim"]), np.array(truth))
        for key, value in expected.items():
            assert row[key] == pytest.approx(value, rel=1e-3), key


def test_the_ridge_and_the_margin_are_the_rows_own(both):
    found, run = both
    names, truth = zip(*((row["sources"], row["truth"]) for row in random_rows(found)), strict=True)
    margins = ["sequence"] if run.recipe.model.task == "sequence-classification" else ["sequence", "token"]
    rows = found.parts["ridge"].rows
    assert [(row["margin"], row["ridge"]) for row in rows] == [(m, r) for m in margins for r in (1.0, 10.0)]
    for row in rows:
        estimates = estimated(run, names, row["ridge"], dim=16, margin=row["margin"])
        expected = metrics.agreement(estimates, np.array(truth))
        assert row["relative_error"] == pytest.approx(expected["relative_error"], rel=1e-3)
        assert row["spearman"] == pytest.approx(expected["spearman"])


def test_directions_are_what_they_are_called(both, tmp_path):
    found, run = both
    rows = found.parts["rrss"].rows
    assert [(r["direction"], r["place"]) for r in rows if r["number"] == 0] == [
        *((kind, place) for kind in ("fine-tuned", "estimated") for place in ("0.1%", "0.2%", "end")),
        *(("random", place) for place in ("0.1%", "0.2%")),
    ]
    model = fine_tuned(run, random_rows(found)[0]["sources"], tmp_path / "steps")
    start = {name: p.detach() for name, p in trainable(meta(run)).items()}
    step = {name: p.detach() - start[name] for name, p in trainable(model).items()}
    lengths = [np.sqrt(sum(float(p.double().square().sum()) for p in parts.values())) for parts in (step, start)]
    ends = {row["direction"]: row for row in rows if row["place"] == "end"}
    assert ends["fine-tuned"]["distance"] == pytest.approx(lengths[0] / lengths[1], rel=1e-5)
    # at its end the expansion's error is the fine-tuned model's own
    examples = [*run.examples(), *run.corpus.validation.examples]
    examples = [examples[row] for row in np.linspace(0, len(examples) - 1, 9).round().astype(int)]
    here, there = (margins_of(run, model, examples) for model in (meta(run), model))
    assert ends["fine-tuned"]["rrss_constant"] == pytest.approx(metrics.relative_error(here, there), rel=1e-3)


def margins_of(run: Run, model, examples) -> np.ndarray:
    """As the sketcher has them."""
    return sketch_examples(Sketcher(model, dim=4), examples, pad_id=run.pad_id, batch_tokens=8192).margin


def test_in_the_span_of_p_a_sketched_slope_is_exact(both):
    found, run = both
    rows = found.parts["rrss"].rows
    for row in rows:
        if row["direction"] == "estimated":
            assert row["rrss_sketched"] == pytest.approx(row["rrss"], rel=0.02, abs=1e-9)
    mask = np.isin(run.corpus.names, random_rows(found)[0]["sources"])
    x = run.estimator.solve([[*np.flatnonzero(mask)]]).x
    parts = {n: kernels.lift(x.astype(np.float32), p.numel(), name=n, seed=0) for n, p in trainable(meta(run)).items()}
    size = np.sqrt(sum(np.square(part.astype(np.float64)).sum() for part in parts.values()))
    whole = np.sqrt(sum(float(p.detach().double().square().sum()) for p in trainable(meta(run)).values()))
    end = next(row for row in rows if row["direction"] == "estimated" and row["place"] == "end")
    assert end["distance"] == pytest.approx(size / whole, rel=1e-4)


def test_the_summary_of_the_expansion_is_the_mean_of_the_directions(both):
    part = both[0].parts["rrss"]
    for row in part.summary:
        same = [r for r in part.rows if r["direction"] == row["direction"] and r["distance"] == row["distance"]]
        assert row["rrss"] == pytest.approx(np.mean([r["rrss"] for r in same]))


def test_per_token_every_label_is_a_regression_row_of_its_own(both):
    found, run = both
    names, truth = zip(*((row["sources"], row["truth"]) for row in random_rows(found)), strict=True)
    rows = {(row["estimate"], row["ridge"]): row for row in found.parts["curvature"].rows}
    assert set(rows) == {(kind, r) for kind in ("first order", "per token") for r in (1.0, 10.0)} | {("lifted", 10.0)}
    expected = metrics.agreement(per_token_by_hand(run, names, 10.0), np.array(truth))
    assert rows["per token", 10.0]["relative_error"] == pytest.approx(expected["relative_error"], rel=1e-3)
    if run.recipe.model.task == "sequence-classification":  # one label a row: nothing is added
        assert rows["per token", 1.0]["pearson"] == pytest.approx(rows["first order", 1.0]["pearson"], rel=1e-4)


def per_token_by_hand(run: Run, subsets, ridge: float) -> np.ndarray:
    """Weighted regressions in float64 over token rows, by the specification's solver."""
    sources = [*run.corpus.sources, run.corpus.train]
    owners = [name for s in sources for e in s.examples for name in [s.name] * e.supervised]
    found = []
    for rows in ([e for s in sources for e in s.examples], run.corpus.validation.examples):
        g = sketched(run, [copy for e in rows for copy in copies(e)], dim=16)
        found.append((g.g.astype(float), g.margin, np.array([1 / e.supervised for e in rows for _ in copies(e)])))
    (g, h, w), (vg, vh, vw) = found
    sigma = 1 / (1 + np.exp(-h))
    l2 = ridge * (w * sigma * (1 - sigma) * np.square(g).sum(1)).sum() / w.sum() / 16
    losses = []
    for names in subsets:
        rows = np.isin(owners, [*names, run.corpus.train.name])
        x = reference.minimize(g[rows], h[rows], w[rows], l2, 0.75 * w.sum())
        losses.append((vw * np.log1p(np.exp(-(vh + vg @ x)))).sum() / vw.sum())
    return np.array(losses)
