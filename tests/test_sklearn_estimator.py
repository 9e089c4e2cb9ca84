"""SubsetLogisticRegression: the minima that scikit-learn and SciPy find, one at a time or by the hundred."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from gradex_fast import SubsetLogisticRegression

CS = [1e-4, 1e-2, 1.0, 1e2, 1e4]
INTERCEPTS = {
    "free": {},
    "penalised": {"penalize_intercept": True},
    "none": {"fit_intercept": False},
}


@pytest.fixture(scope="module", autouse=True)
def one_blas_thread():
    """For small matrices more only wait for one another."""
    with threadpool_limits(1):
        yield


@parametrize_with_checks([SubsetLogisticRegression(**options) for options in INTERCEPTS.values()])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def make_rows(count, dim, *, seed=0, separable=False, shift=0.0):
    """X [N, d] of mean `shift` and y 0 or 1, both of which occur; b is about 1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, dim))
    z = x @ rng.standard_normal(dim) * 2 / np.sqrt(dim) + 1
    y = (z > 0 if separable else rng.random(count) < expit(z)).astype(int)
    y[0] = 1 - y[1:].max()
    y[1] = 1 - y[0]
    return x + shift, y


def objective(w, b, x, y, C, *, weight=None, offset=0.0, penalised=False):
    """C Σ s softplus(−y (o + w·x + b)) + ½‖w‖² [+ ½b²], of y 0 or 1."""
    losses = -log_expit((2 * y - 1) * (offset + x @ w + b))
    return C * np.sum(losses if weight is None else weight * losses) + w @ w / 2 + penalised * b * b / 2


def minimum(x, y, C, *, weight, offset, kind):
    """The least objective, by SciPy with exact Hessians."""
    columns = np.column_stack([x, np.full(len(x), float(kind != "none"))])
    penalty, sign = np.append(np.ones(x.shape[1]), float(kind != "free")), 2 * y - 1

    def value(v):
        return -C * weight @ log_expit(sign * (offset + columns @ v)) + v @ (penalty * v) / 2

    def slope(v):
        return -C * (weight * sign * expit(-sign * (offset + columns @ v))) @ columns + penalty * v

    def bend(v):
        z = offset + columns @ v
        return C * (columns.T * (weight * expit(z) * expit(-z))) @ columns + np.diag(penalty)

    options = {"gtol": 1e-9 * np.linalg.norm(slope(np.zeros(len(penalty)))), "maxiter": 2000}
    return minimize(value, np.zeros(len(penalty)), jac=slope, hess=bend, method="trust-exact", options=options).fun


@pytest.mark.parametrize("separable", [False, True], ids=["noisy", "separable"])
@pytest.mark.parametrize("kind", ["free", "none"])
@pytest.mark.parametrize("C", CS)
def test_objective_is_scikit_learns(C, kind, separable):
    for (count, dim), weighted in itertools.product([(10, 1), (60, 5), (300, 40), (30, 100)], [False, True]):
        x, y = make_rows(count, dim, separable=separable)
        weight = np.random.default_rng(1).exponential(size=count) if weighted else None
        ours = SubsetLogisticRegression(C, **INTERCEPTS[kind]).fit(x, y, sample_weight=weight)
        theirs = LogisticRegression(C=C, fit_intercept=kind == "free", tol=1e-8, max_iter=3_000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # what it came to is compared all the same
            theirs.fit(x, y, sample_weight=weight)
        least = objective(theirs.coef_[0], theirs.intercept_[0], x, y, C, weight=weight)
        found = objective(ours.coef_[0], ours.intercept_[0], x, y, C, weight=weight)
        assert found <= least * (1 + 1e-9)
        assert ours.losses_[0] == pytest.approx(found, rel=1e-10)
        if not separable:
            assert found == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize("kind", INTERCEPTS)
@pytest.mark.parametrize("C", CS)
def test_offsets_and_weights_against_scipy(C, kind):
    for (count, dim), separable in itertools.product([(10, 1), (80, 8), (200, 30)], [False, True]):
        x, y = make_rows(count, dim, separable=separable, seed=2)
        rng = np.random.default_rng(3)
        data = {"weight": rng.exponential(size=count), "offset": 3 * rng.standard_normal(count)}
        ours = SubsetLogisticRegression(C, **INTERCEPTS[kind]).fit(
            x, y, sample_weight=data["weight"], offset=data["offset"]
        )
        least = minimum(x, y, C, kind=kind, **data)
        found = objective(ours.coef_[0], ours.intercept_[0], x, y, C, penalised=kind == "penalised", **data)
        assert found == pytest.approx(least, rel=1e-9)
        assert ours.losses_[0] == pytest.approx(found, rel=1e-10)


@pytest.mark.parametrize("kind", INTERCEPTS)
@pytest.mark.parametrize("C", CS)
def test_subsets_are_fits_of_their_rows(C, kind):
    """Groups in any order, of unequal size and one of them without rows; offsets, weights and a mean that is not 0."""
    x, y = make_rows(700, 10, seed=4, shift=2.0)
    rng = np.random.default_rng(5)
    groups = rng.permutation(np.repeat([0, 1, 2, 4, 5, 6], [50, 100, 100, 150, 200, 100]))
    subsets = rng.random((24, 7)) < 0.5
    subsets[:, 5] |= subsets.sum(axis=1) < 3
    weight, offset = rng.exponential(size=700), rng.standard_normal(700)
    ours = SubsetLogisticRegression(C, **INTERCEPTS[kind])
    ours.fit(x, y, groups=groups, subsets=subsets, sample_weight=weight, offset=offset)
    assert ours.converged_.all() and ours.coefs_.shape == (24, 10)
    for s, subset in enumerate(subsets):
        inside = subset[groups]
        rows = x[inside], y[inside], C
        data = {"weight": weight[inside], "offset": offset[inside]}
        found = objective(ours.coefs_[s], ours.intercepts_[s], *rows, penalised=kind == "penalised", **data)
        assert found == pytest.approx(minimum(*rows, kind=kind, **data), rel=1e-6)
        assert ours.losses_[s] == pytest.approx(found, rel=1e-10)
    values = ours.decision_functions(x[:9], offset=offset[:9])
    np.testing.assert_allclose(values, ours.coefs_ @ x[:9].T + ours.intercepts_[:, None] + offset[:9])


@pytest.mark.parametrize("C", [1e-4, 1.0, 1e4])
def test_rare_labels_in_subsets(C):
    """One label in 400 and small features: a free intercept is large, and its curvature small."""
    x, y = np.random.default_rng(6).standard_normal((4000, 3)) / 100, np.zeros(4000, int)
    y[::400] = 1
    groups, subsets = np.arange(4000) // 400, ~np.eye(10, dtype=bool)[:4]
    ours = SubsetLogisticRegression(C).fit(x, y, groups=groups, subsets=subsets)
    for s, subset in enumerate(subsets):
        inside = subset[groups]
        rows, data = (x[inside], y[inside], C), {"weight": np.ones(inside.sum()), "offset": 0.0}
        found = objective(ours.coefs_[s], ours.intercepts_[s], *rows, **data)
        assert found == pytest.approx(minimum(*rows, kind="free", **data), rel=1e-6)


def test_penalised_intercept_is_liblinears():
    """And at a small C it is another model than the free one: the coefficients differ by more than their size."""
    x, y = make_rows(400, 6, seed=7, shift=1.5)
    for C in CS:
        ours = SubsetLogisticRegression(C, penalize_intercept=True).fit(x, y)
        theirs = LogisticRegression(C=C, solver="liblinear", tol=1e-10, max_iter=10_000).fit(x, y)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4, atol=1e-6 * np.abs(theirs.coef_).max())
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-4)
    free, penalised = (SubsetLogisticRegression(1e-4, penalize_intercept=p).fit(x, y).coef_ for p in (False, True))
    assert np.linalg.norm(free - penalised) > np.linalg.norm(free)


def test_lists_masks_threads_and_types_agree():
    x, y = make_rows(300, 4)
    groups, subsets = np.arange(300) % 5, np.random.default_rng(8).random((9, 5)) < 0.6
    expected = SubsetLogisticRegression(n_jobs=1).fit(x, y, groups=groups, subsets=subsets)
    lists = [np.flatnonzero(subset).tolist() for subset in subsets]
    forms = [(groups, lists), (groups.tolist(), subsets.tolist()), (groups.astype(np.uint8), subsets.astype(np.uint8))]
    for of_rows, chosen in forms:
        found = SubsetLogisticRegression(n_jobs=2).fit(x, np.where(y, "yes", "no"), groups=of_rows, subsets=chosen)
        np.testing.assert_array_equal(found.coefs_, expected.coefs_)
        np.testing.assert_array_equal(found.intercepts_, expected.intercepts_)


def test_float32_is_its_values_in_float64():
    x, y = make_rows(200, 5)
    narrow = x.astype(np.float32)
    a, b = SubsetLogisticRegression().fit(narrow, y), SubsetLogisticRegression().fit(narrow.astype(np.float64), y)
    np.testing.assert_allclose(a.coef_, b.coef_, rtol=1e-12)


def test_features_far_from_zero():
    """Years, say: float32 has 1e-4 of one left. Centred, and finished in float64, nothing is lost."""
    x, y = make_rows(300, 3)
    near, far = SubsetLogisticRegression().fit(x, y), SubsetLogisticRegression().fit(x + 1e5, y)
    np.testing.assert_allclose(far.coef_, near.coef_, rtol=1e-6)
    groups, subsets = np.arange(300) % 3, [[0, 1], [0, 1, 2]]
    near, far = (SubsetLogisticRegression().fit(a, y, groups=groups, subsets=subsets) for a in (x, x + 1e5))
    np.testing.assert_allclose(far.losses_, near.losses_, rtol=1e-6)


def test_subsets_without_rows_or_with_one_class():
    x, y = make_rows(60, 2)
    groups = 2 * y
    found = SubsetLogisticRegression().fit(x, y, groups=groups, subsets=[[], [1], [2], [0, 2]])
    assert not found.coefs_[:2].any() and not found.intercepts_[:2].any() and not found.losses_[:2].any()
    assert found.intercepts_[2] > 10 and found.losses_[2] < 1e-3
    alone = SubsetLogisticRegression().fit(x, y)
    np.testing.assert_allclose(found.coefs_[3], alone.coef_[0], rtol=1e-2)


def test_no_model_to_predict_with_after_subsets():
    x, y = make_rows(60, 2)
    model = SubsetLogisticRegression().fit(x, y)
    model.fit(x, y, groups=np.arange(60) % 3, subsets=[[0, 1], [1, 2]])
    for method in (model.predict, model.predict_proba, model.decision_function):
        with pytest.raises(ValueError, match=r"2 subsets.*decision_functions"):
            method(x)
    assert not hasattr(model, "coef_") and not hasattr(model, "intercept_")
    assert model.decision_functions(x).shape == (2, 60)
    restored = pickle.loads(pickle.dumps(model.fit(x, y)))
    np.testing.assert_array_equal(restored.predict_proba(x), model.predict_proba(x))


def test_max_iter_is_heeded_and_said():
    x, y = make_rows(200, 20, separable=True)
    with pytest.warns(ConvergenceWarning, match="1 of 1 regressions did not converge: raise max_iter"):
        assert not SubsetLogisticRegression(1e4, max_iter=1).fit(x, y).converged_[0]


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"C": 0.0}, {}, "C must be a positive"),
        ({"tol": -1.0}, {}, "tol must be >= 0"),
        ({}, {"groups": np.zeros(40, int)}, "groups and subsets go together"),
        ({}, {"groups": ["a"] * 40, "subsets": [[0]]}, "groups must be integers from 0"),
        ({}, {"groups": np.zeros(39, int), "subsets": [[0]]}, r"one a row, \[40\]"),
        ({}, {"groups": np.arange(40) % 2, "subsets": [[2]]}, "there are 2 groups"),
        ({}, {"groups": np.arange(40) % 2, "subsets": np.ones((3, 1), bool)}, r"bool \[m, 2\]"),
        ({}, {"offset": np.zeros(3)}, "offset must be one number a row"),
        ({}, {"offset": np.full(40, np.nan)}, "offset contains NaN"),
        ({}, {"sample_weight": -np.ones(40)}, "sample_weight must be >= 0"),
        ({"C": 1e-90}, {}, "too large for float32, or C too small"),
    ],
)
def test_mistakes_are_named(options, arguments, message):
    with pytest.raises(ValueError, match=message):
        SubsetLogisticRegression(**options).fit(*make_rows(40, 2), **arguments)


def test_what_is_refused():
    x, y = make_rows(40, 2)
    with pytest.raises(TypeError, match="dense data is required"):
        SubsetLogisticRegression().fit(sparse.csr_array(x), y)
    with pytest.raises(ValueError, match="Only binary classification is supported"):
        SubsetLogisticRegression().fit(x, np.arange(40) % 3)
    with pytest.raises(ValueError, match="one class"):
        SubsetLogisticRegression().fit(x, y, sample_weight=y)


def test_within_scikit_learn():
    """A grid search over C in a pipeline, with offsets routed to fit and predict."""
    x, y = make_rows(120, 3)
    offset = np.random.default_rng(9).standard_normal(120)
    with config_context(enable_metadata_routing=True):
        model = SubsetLogisticRegression(n_jobs=1).set_fit_request(offset=True)
        search = GridSearchCV(make_pipeline(StandardScaler(), model), {"subsetlogisticregression__C": [0.1, 1.0]}, cv=3)
        search.fit(x, y, offset=offset)
    scaled = StandardScaler().fit_transform(x)
    best = clone(search.best_estimator_[-1]).fit(scaled, y, offset=offset)
    np.testing.assert_allclose(search.best_estimator_[-1].coef_, best.coef_, rtol=1e-12)
    shifted = best.decision_function(scaled, offset=offset) - best.decision_function(scaled)
    np.testing.assert_allclose(shifted, offset, atol=1e-12)
    np.testing.assert_allclose(best.predict_proba(scaled)[:, 1], expit(best.decision_function(scaled)), rtol=1e-12)


def test_imports():
    """Without scikit-learn the name says what it needs; with it, it loads no transformers."""
    code = """
import sys, gradex_fast
sys.modules["sklearn"] = None
try:
    gradex_fast.SubsetLogisticRegression
except ImportError as error:
    print(error)
del sys.modules["sklearn"]
gradex_fast.SubsetLogisticRegression
assert "transformers" not in sys.modules and "SubsetLogisticRegression" not in gradex_fast.__all__
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "SubsetLogisticRegression needs scikit-learn: pip install 'gradex_fast[sklearn]'\n", (
        done.stderr
    )
    assert done.returncode == 0, done.stderr
