"""The random ensemble against α, the share of the sources in a subset, and d: how far it tells sources apart."""

from __future__ import annotations

from common import Case, Figures, told

from gradex_fast.diagnose import variants
from gradex_fast.search import search

SHARES = (0.25, 0.5, 0.75)
DIMS = (100, 400)


def by_share(case: Case) -> Figures:
    """AUC and gap of the scores, and what the natural break keeps, at the run's ridge; no training."""
    run, rows = case.run, []
    wide = variants.sketched(run, max(DIMS))
    for dim in DIMS:
        estimator = variants.estimator_of(variants.narrowed(wide, dim), run.estimator.ridge)
        for share in SHARES:
            found = search(run, "ensemble", None, estimator=estimator, fraction=share)
            scores, kept = found.scores[: len(case.bad)], list(found.chosen)
            counts = {"kept": len(kept), "bad": int(case.bad[kept].sum())}
            rows.append({"dim": dim, "share": share, **told(scores, case.bad), **counts})
    return {"rows": rows}
