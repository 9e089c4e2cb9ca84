"""A scikit-learn classifier over the subset solver: one logistic regression, or one per subset of the rows' groups."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from gradex_fast.logistic import Fits, Intercept, LabelledRows, fit_subsets
from gradex_fast.newton import LARGEST_DIM, Objective, polish
from gradex_fast.regression import Status

try:
    from joblib import effective_n_jobs
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils.multiclass import check_classification_targets, type_of_target
    from sklearn.utils.validation import check_is_fitted, validate_data

    from gradex_fast.compat.sklearn_inputs import column_of, groups_of, masks_of
except ImportError as error:
    raise ImportError("SubsetLogisticRegression needs scikit-learn: pip install 'gradex_fast[sklearn]'") from error


class SubsetLogisticRegression(ClassifierMixin, BaseEstimator):
    """Binary logistic regression with scikit-learn's objective, and hundreds of them over subsets at once.

    Minimises C Σ_i s_i softplus(−y_i (o_i + w·x_i + b)) + ½‖w‖² with labels y = ±1, offsets o and sample weights s:
    what `sklearn.linear_model.LogisticRegression` minimises where o = 0. X is dense. Beyond about a thousand features
    the solver has no Hessians: it takes many steps, and may need a larger `max_iter`.

    Without subsets `fit` is any classifier's. It ends with Newton's steps in float64 (NumPy's, up to 1,024 features),
    so that the result is exact to rounding whatever `tol` is. With `groups` and `subsets`, every subset is a
    regression over the rows of its groups, each within `tol` of its minimum. Then there is no one model to predict
    with, and any choice would be a silent one: `predict`, `predict_proba` and `decision_function` raise, and
    `decision_functions` has all subsets' values.

    Args:
        C: as in scikit-learn, of the sum (not the mean) over a subset's rows; finite.
        fit_intercept: whether there is a b.
        penalize_intercept: adds ½b² to the objective, as liblinear does with intercept_scaling=1.
        tol: greatest excess of the objective over its minimum, relative to it.
        max_iter: steps of a regression, at most; where it ends one, there is a `ConvergenceWarning`.
        n_jobs: threads; None is torch's number, -1 all cores. The result's bits do not depend on it.

    Attributes:
        classes_: the two labels; the second is y = +1.
        coef_ [1, d], intercept_ [1]: of a fit without subsets; after one with subsets they do not exist.
        coefs_ [m, d], intercepts_ [m]: of every subset, float64; m = 1 without subsets. A subset without rows or weight
            has zeros. One whose rows have one class has, if b is not penalised, no minimum: b is a large number.
        losses_ [m]: the objective there.
        n_iter_ [m]: steps, the start that all subsets share counted as one.
        converged_: bool [m].
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        fit_intercept: bool = True,
        penalize_intercept: bool = False,
        tol: float = 1e-6,
        max_iter: int = 500,
        n_jobs: int | None = None,
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.penalize_intercept = penalize_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        offset: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        subsets: ArrayLike | Sequence[Sequence[int]] | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> SubsetLogisticRegression:
        """Fit one regression, or one per subset.

        Args:
            X: [N, d]. y: [N], two labels of any kind.
            offset: [N], o: what a row's decision function is before w and b; None is 0.
            groups: int [N], the group of every row, from 0; in any order, and a group may have no rows.
            subsets: bool [m, n], or m lists of groups. Goes with `groups`.
            sample_weight: [N], s ≥ 0.

        Raises:
            ValueError: shapes, values or parameters do not fit, or there are not two classes. TypeError: X is sparse.
        """
        self._check_parameters()
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        rows = self._rows(X, y, offset, sample_weight)
        if (groups is None) != (subsets is None):
            raise ValueError("groups and subsets go together: a group of every row, and which groups are in a subset")
        single = groups is None
        groups = np.zeros(len(X), np.int64) if single else groups_of(groups, len(X))
        fits = self._solve(rows, groups, np.ones((1, 1), bool) if single else masks_of(subsets, groups))
        self.coefs_, self.intercepts_, self.losses_ = fits.coefficients, fits.intercepts, fits.losses
        self.n_iter_, self.converged_ = fits.iterations + 1, np.isin(fits.status, (Status.CONVERGED, Status.EMPTY))
        if single:
            self._finish(rows)
        else:
            vars(self).pop("coef_", None), vars(self).pop("intercept_", None)
        if not self.converged_.all():
            left = int((~self.converged_).sum())
            message = f"{left} of {len(self.converged_)} regressions did not converge: raise max_iter, or scale X"
            warnings.warn(message, ConvergenceWarning, stacklevel=2)
        return self

    def decision_functions(self, X: ArrayLike, *, offset: ArrayLike | None = None) -> np.ndarray:
        """o + w·x + b of every row for every subset: float64 [m, N]. X [N, d], offset [N]."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self.coefs_ @ X.T + self.intercepts_[:, None] + column_of(offset, len(X), "offset", 0.0)

    def decision_function(self, X: ArrayLike, *, offset: ArrayLike | None = None) -> np.ndarray:
        """o + w·x + b of every row: [N], positive for `classes_[1]`.

        Raises:
            ValueError: there are subsets.
        """
        check_is_fitted(self)
        if not hasattr(self, "coef_"):
            m = len(self.coefs_)
            raise ValueError(f"this is a fit of {m} subsets, not of one model: use decision_functions(X), [{m}, N]")
        return self.decision_functions(X, offset=offset)[0]

    def predict(self, X: ArrayLike, *, offset: ArrayLike | None = None) -> np.ndarray:
        """The likelier label of every row: [N]. Raises as `decision_function`."""
        values = self.decision_function(X, offset=offset)
        return self.classes_[(values > 0).astype(int)]

    def predict_proba(self, X: ArrayLike, *, offset: ArrayLike | None = None) -> np.ndarray:
        """Probabilities of `classes_`: [N, 2]. Raises as `decision_function`."""
        values = self.decision_function(X, offset=offset)
        return np.exp(-np.logaddexp(0, np.stack([values, -values], axis=1)))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _check_parameters(self) -> None:
        if not 0 < self.C < np.inf:
            raise ValueError(f"C must be a positive, finite number, got {self.C}")
        if not self.tol >= 0 or self.max_iter < 1:
            raise ValueError(f"tol must be >= 0 and max_iter >= 1, got {self.tol} and {self.max_iter}")

    def _rows(self, X: np.ndarray, y: np.ndarray, offset: ArrayLike | None, weight: ArrayLike | None) -> LabelledRows:
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) > 2:
            raise ValueError(f"Only binary classification is supported. The type of the target is {type_of_target(y)}.")
        weight = column_of(weight, len(X), "sample_weight", 1.0)
        if (weight < 0).any() or not weight.any():
            raise ValueError("sample_weight must be >= 0 and not all zero")
        if len(np.unique(labels[weight > 0])) < 2:
            raise ValueError("the rows of positive weight have one class only: two are needed")
        return LabelledRows(X, 2.0 * labels - 1.0, column_of(offset, len(X), "offset", 0.0), weight)

    def _solve(self, rows: LabelledRows, groups: np.ndarray, masks: np.ndarray) -> Fits:
        threads = torch.get_num_threads() if self.n_jobs is None else effective_n_jobs(self.n_jobs)
        limits = {"tol": self.tol, "max_iterations": self.max_iter, "threads": threads}
        return fit_subsets(rows, groups, masks, C=self.C, intercept=self._intercept, **limits)

    def _finish(self, rows: LabelledRows) -> None:
        if self.converged_[0] and rows.x.shape[1] <= LARGEST_DIM:
            objective = Objective(rows, self.C, self._intercept)
            w, b, loss, steps = polish(objective, self.coefs_[0], self.intercepts_[0])
            self.coefs_[0], self.intercepts_[0], self.losses_[0] = w, b, loss
            self.n_iter_ += steps
        self.coef_, self.intercept_ = self.coefs_, self.intercepts_

    @property
    def _intercept(self) -> Intercept:
        if not self.fit_intercept:
            return Intercept.NONE
        return Intercept.PENALISED if self.penalize_intercept else Intercept.FREE
