"""Rows to clusters by the directions of their sketches (GRADEX-DS). Pure arrays; knows neither files nor sources."""

from __future__ import annotations

import warnings

import numpy as np

from gradex_fast.errors import GradexError

ALONE = -1
"""Label of a row whose sketch is 0 or not finite: it has no direction."""

LARGEST_GRAPH = 4096
"""Nodes of which all pairs are held (128 MiB); more rows are first gathered around `CENTRES` centres."""

CENTRES = 2048


def cluster_rows(g: np.ndarray, count: int, method: str = "spectral", seed: int = 0) -> np.ndarray:
    """Cut rows into at most `count` clusters of similar direction.

    The same bits for a seed, whatever the number of threads. Fewer clusters come out where rows point in fewer
    directions.

    Args:
        g: [n, d]. count: ≥ 1.
        method: "spectral" (normalised cut of the cosine graph) or "agglomerative" (mean cosine between clusters).

    Returns:
        int64 [n]: 0, 1, ... in the order of each cluster's first row; `ALONE`.

    Raises:
        GradexError: scikit-learn is not installed.
    """
    labels = np.full(len(g), ALONE)
    norms = np.linalg.norm(np.asarray(g, np.float64), axis=1)
    rows = np.flatnonzero(np.isfinite(norms) & (norms > 0))
    if len(rows):
        labels[rows] = _by_first_row(_clustered(g[rows] / norms[rows, None], count, method, seed))
    return labels


def require_scikit_learn() -> None:
    """Raises GradexError where scikit-learn is not installed."""
    try:
        import sklearn.cluster  # noqa: F401
    except ImportError as error:
        raise GradexError("clusters need scikit-learn: pip install 'gradex_fast[clusters]'") from error


def cosine_graph(directions: np.ndarray) -> np.ndarray:
    """Weights max(0, cos)³ between unit rows [n, d].

    The cube is for the sketch: P leaves ±1/√d in the cosine of unrelated rows, and n of those would outweigh a row's
    own cluster.
    """
    return np.maximum(directions @ directions.T, 0) ** 3


def _clustered(directions: np.ndarray, count: int, method: str, seed: int) -> np.ndarray:
    if (few := _distinct(directions, count)) is not None:
        return few
    require_scikit_learn()
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():  # one thread: sums in one order
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        if len(directions) <= LARGEST_GRAPH:
            return _METHODS[method](directions, count, seed)
        nearest, centres = _gathered(directions, max(CENTRES, 2 * count), seed)
        return _METHODS[method](centres, count, seed)[nearest]


def _distinct(directions: np.ndarray, count: int) -> np.ndarray | None:
    """A label for every direction where there are at most `count`, else None. Those of float32 are equal to 1e-7."""
    seen: dict[bytes, int] = {}
    labels = []
    for direction in directions:
        labels.append(seen.setdefault((direction.round(6) + 0.0).tobytes(), len(seen)))
        if len(seen) > count:
            return None
    return np.array(labels)


def _spectral(directions: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    options = {"affinity": "precomputed", "assign_labels": "cluster_qr", "random_state": seed}
    return SpectralClustering(count, **options).fit_predict(cosine_graph(directions))


def _agglomerative(directions: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import AgglomerativeClustering

    return AgglomerativeClustering(count, metric="cosine", linkage="average").fit_predict(directions)


_METHODS = {"spectral": _spectral, "agglomerative": _agglomerative}


def _gathered(directions: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """k-means: the centre [n] of every row, and the centres' directions; those without rows are gone."""
    from sklearn.cluster import MiniBatchKMeans

    found = MiniBatchKMeans(count, batch_size=4096, n_init=1, random_state=seed).fit(directions)
    used, nearest = np.unique(found.labels_, return_inverse=True)
    centres = found.cluster_centers_[used]
    return nearest, centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), np.finfo(float).tiny)


def _by_first_row(labels: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()]
