"""The public solvers, one subset after another, each in a process of its own with 1 and with 2 threads.

scikit-learn has no offset (its issue #24614): its three solve the problem without the margins h, with labels
r ~ Bernoulli(0.7) and g's sign flipped where r = 0, as the paper's authors do; L-BFGS and Newton-Cholesky without an
intercept, so that it is the same family of problems. liblinear is called with the authors' settings: a penalised
intercept, tolerance 1e-4; its suboptimality is not comparable and not measured. Every other solver runs at the loosest
tolerance with which the first three subsets come within 1e-6 of the optimum of what it solves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from gradex_fast.bench.problems import Problem

TOLERANCES = tuple(10.0 ** (-k / 2) for k in range(8, 21))
SUBOPTIMALITY, CHECKED, MOST = 1e-6, 3, 200
DEFAULT = 1e-4
REMOVED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def scipy_lbfgs(features: np.ndarray, margins: np.ndarray, l2: float, tol: float) -> np.ndarray:
    """features [r, d], margins [r] -> x [d]."""
    from scipy.optimize import minimize
    from scipy.special import expit, log_expit

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = margins + features @ x
        return l2 / 2 * x @ x - log_expit(z).mean(), l2 * x - expit(-z) @ features / len(z)

    options = {"gtol": tol, "ftol": 0.0, "maxiter": 2000}
    start = np.zeros(features.shape[1])
    return minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options).x


def torch_lbfgs(features: np.ndarray, margins: np.ndarray, l2: float, tol: float) -> np.ndarray:
    import torch

    g, h = torch.from_numpy(features), torch.from_numpy(margins)
    x = torch.zeros(g.shape[1], dtype=torch.float64, requires_grad=True)
    limits = {"tolerance_grad": tol, "tolerance_change": 0.0, "max_iter": 2000, "history_size": 10}
    optimizer = torch.optim.LBFGS([x], line_search_fn="strong_wolfe", **limits)

    def value() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.softplus(-(h + g @ x)).mean() + l2 / 2 * x @ x
        loss.backward()
        return loss

    optimizer.step(value)
    return x.detach().numpy()


def sklearn_lbfgs(features: np.ndarray, labels: np.ndarray, l2: float, tol: float) -> np.ndarray:
    return _sklearn(features, labels, l2, solver="lbfgs", tol=tol, fit_intercept=False, max_iter=2000)


def sklearn_newton_cholesky(features: np.ndarray, labels: np.ndarray, l2: float, tol: float) -> np.ndarray:
    return _sklearn(features, labels, l2, solver="newton-cholesky", tol=tol, fit_intercept=False, max_iter=2000)


def liblinear(features: np.ndarray, labels: np.ndarray, l2: float, tol: float) -> np.ndarray:
    """Defaults but for C, as the authors call it."""
    return _sklearn(features, labels, l2, solver="liblinear", random_state=0)


def _sklearn(features: np.ndarray, labels: np.ndarray, l2: float, **settings) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1 / (l2 * len(labels)), **settings).fit(features, labels).coef_[0]


@dataclass(frozen=True)
class Rival:
    """Attributes:
    solve: (features, margins or labels, l2, tol) -> x. offset: whether it takes margins; if not, labels ±1.
    comparable: whether it solves the problem of which `suboptimality` is measured.
    """

    solve: Callable[[np.ndarray, np.ndarray, float, float], np.ndarray]
    offset: bool
    comparable: bool = True


RIVALS = {
    "SciPy L-BFGS-B": Rival(scipy_lbfgs, offset=True),
    "torch LBFGS": Rival(torch_lbfgs, offset=True),
    "scikit-learn lbfgs": Rival(sklearn_lbfgs, offset=False),
    "scikit-learn newton-cholesky": Rival(sklearn_newton_cholesky, offset=False),
    "scikit-learn liblinear": Rival(liblinear, offset=False, comparable=False),
}


def save(problem: Problem, subsets: np.ndarray, folder: Path) -> None:
    """For `measure`; subsets bool [m, n]."""
    for name, array in {**asdict(problem), "subsets": subsets}.items():
        np.save(folder / f"{name}.npy", array)


def measure(name: str, folder: Path, l2: float, seconds: float) -> dict[str, float]:
    """The better of 1 and 2 threads: milliseconds, threads, how many were timed, tolerance, suboptimality."""
    found = [_run_child(name, folder, l2, seconds, threads) for threads in (1, 2)]
    return min(found, key=lambda row: row["milliseconds"])


def _run_child(name: str, folder: Path, l2: float, seconds: float, threads: int) -> dict[str, float]:
    environment = {key: value for key, value in os.environ.items() if key not in REMOVED}
    environment |= dict.fromkeys(THREADS, str(threads))
    command = [sys.executable, __file__, name, str(folder), repr(l2), str(seconds), str(threads)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return {"threads": threads, **json.loads(done.stdout.splitlines()[-1])}


def _child(name: str, folder: str, l2: str, seconds: str, threads: str) -> None:
    import torch

    torch.set_num_threads(int(threads))
    arrays = {path.stem: np.load(path) for path in Path(folder).glob("*.npy")}
    subsets = arrays.pop("subsets")
    problem = Problem(**arrays | {"features": arrays["features"].astype(np.float64)})
    rival = RIVALS[name]
    if not rival.offset:
        labels = np.where(np.random.default_rng(0).random(len(problem.margins)) < 0.7, 1.0, -1.0)
        problem = replace(problem, features=problem.features * labels[:, None], margins=labels)
    print(json.dumps(_time(rival, problem, subsets, float(l2), float(seconds))))


def _time(rival: Rival, problem: Problem, subsets: np.ndarray, l2: float, seconds: float) -> dict[str, float | None]:
    """The median over as many subsets as fit into `seconds`, each with the gather of its rows."""
    tol, excess = _tolerance(rival, problem, subsets[:CHECKED], l2)
    spent = []
    while len(spent) < len(subsets) and sum(spent) < seconds:
        start = time.perf_counter()
        rival.solve(*problem.rows(subsets[len(spent)]), l2, tol)
        spent.append(time.perf_counter() - start)
    milliseconds = 1e3 * float(np.median(spent))
    return {"milliseconds": milliseconds, "timed": len(spent), "tolerance": tol, "suboptimality": excess}


def _tolerance(rival: Rival, problem: Problem, subsets: np.ndarray, l2: float) -> tuple[float, float | None]:
    """The loosest that reaches 1e-6 on all of `subsets`, and the greatest suboptimality there; warms up as well."""
    if not rival.comparable:
        rival.solve(*problem.rows(subsets[0]), l2, DEFAULT)
        return DEFAULT, None
    for tol in TOLERANCES:
        excess = 0.0
        for subset in subsets:
            excess = max(excess, _excess(rival, rival.solve(*problem.rows(subset), l2, tol), problem, subset, l2))
            if excess > SUBOPTIMALITY:
                break
        else:
            break
    return tol, excess


def _excess(rival: Rival, x: np.ndarray, problem: Problem, subset: np.ndarray, l2: float) -> float:
    from exact_newton import suboptimality

    features, second = problem.rows(subset)
    data = (features, second) if rival.offset else (features * second[:, None], np.zeros(len(second)))
    return suboptimality(x, *data, l2)


if __name__ == "__main__":
    _child(*sys.argv[1:])
