"""Forward selection by f̂ beside forward selection by f, on one run: first choices, chosen sets, their worth."""

from __future__ import annotations

import numpy as np
from common import Figures, spent

from gradex_fast import metrics
from gradex_fast.baselines import RealEstimator
from gradex_fast.baselines.searches import forward_real
from gradex_fast.search import search
from gradex_fast.state import Run
from gradex_fast.types import Selection


def side_by_side(run: Run, start: str) -> Figures:
    """f is the validation loss after a training from `start`, "pretrained" or "meta" (θ*, where f̂ expands).

    Returns:
        estimated, real, ensemble: sources, f, first choice; ensemble is the run's own selection.
        path: f and f̂ along real forward selection. tried: Spearman of f̂ and f over all subsets that it trained, and
            over those of one source; rank_of_first: of f̂'s first choice by f. trainings, cost: of the real search.
    """
    estimated = search(run, "forward", None)
    outcome = forward_real(run, start=start)
    real = outcome.selection
    chosen = {"estimated": estimated, "real": real, "ensemble": run.selection}
    truth = RealEstimator(run, start=start).estimate([list(one.chosen) for one in chosen.values()]).loss
    tried, loss = _tried(real)
    guess = run.estimator.at_ridge(run.estimator.ridge).estimate(tried).loss
    single = tried.sum(1) == tried.sum(1).min()
    alone = loss[single & tried[:, estimated.path[0]["source"]]]
    return {
        **{name: _worth(run, one, f) for (name, one), f in zip(chosen.items(), truth, strict=True)},
        "same_first": estimated.path[0]["source"] == real.path[0]["source"],
        "tried": {"all": metrics.spearman(guess, loss), "single": metrics.spearman(guess[single], loss[single])},
        "rank_of_first": 1 + int(np.sum(loss[single] < alone)),
        "path": _path(run, real),
        "trainings": len(tried),
        "cost": spent(outcome.cost),
    }


def _worth(run: Run, selection: Selection, loss: float) -> Figures:
    names = [run.corpus.names[index] for index in selection.chosen]
    first = run.corpus.names[selection.path[0]["source"]] if selection.path else None
    return {"chosen": names, "f": float(loss), "first": first}


def _tried(real: Selection) -> tuple[np.ndarray, np.ndarray]:
    """The different subsets of some source that a search trained: bool [m, n], and their f [m]."""
    some = np.flatnonzero(real.subsets.any(1))
    first = some[np.unique(real.subsets[some], axis=0, return_index=True)[1]]
    return real.subsets[first], real.estimates.loss[first]


def _path(run: Run, real: Selection) -> list[Figures]:
    """f and f̂, not calibrated, of the sets that real forward selection went through."""
    masks = np.zeros((len(real.path), run.estimator.groups), bool)
    masks[:, list(run.estimator.always)] = True
    for index, step in enumerate(real.path):
        masks[index:, step["source"]] = True
    guess = run.estimator.at_ridge(run.estimator.ridge).estimate(masks).loss
    named = [run.corpus.names[step["source"]] for step in real.path]
    return [
        {"source": n, "f": s["loss"], "estimate": float(g)} for n, s, g in zip(named, real.path, guess, strict=True)
    ]
