"""How far the ensemble's scores have settled with the number of subsets (arXiv 2409.19458, Appendix C.2)."""

from __future__ import annotations

import numpy as np

from gradex_fast.metrics import spearman
from gradex_fast.select.validate import group_means

SHARES = (8, 4, 2)


def convergence(losses: np.ndarray, masks: np.ndarray) -> list[dict[str, float | int | None]]:
    """T from the first m/8, m/4 and m/2 of the m subsets against T from all.

    A half's subsets are part of the whole, so at m/2 the error is about that which more subsets would still take away
    from T at m.

    Args:
        losses: f̂ [m]. masks: bool [m, n] over the sources that were drawn from, in the order drawn.

    Returns:
        For each: subsets; spearman, the correlation of the ranks; error, the standard deviation of the difference over
        the sources in units of that of T at m: a shift that all share ranks nothing. None where some source was not
        drawn or all T agree.
    """
    final = group_means(losses, masks)
    counts = [len(losses) // share for share in SHARES if len(losses) >= share]
    return [{"subsets": count, **_distance(group_means(losses[:count], masks[:count]), final)} for count in counts]


def _distance(scores: np.ndarray, final: np.ndarray) -> dict[str, float | None]:
    difference, spread = scores - final, final.std()
    if not (np.isfinite(difference).all() and spread > 0):
        return {"spearman": None, "error": None}
    correlation = spearman(scores, final)
    rank = correlation if np.isfinite(correlation) else None
    return {"spearman": rank, "error": float(difference.std() / spread)}
