"""Clusters of rows by direction: planted ones are found, the same bits always, rows without a direction put aside."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from gradex_fast import clustering
from gradex_fast.clustering import ALONE, cluster_rows, cosine_graph
from gradex_fast.errors import GradexError

METHODS = ("spectral", "agglomerative")


def planted(
    rows: int, clusters: int, dim: int = 60, noise: float = 0.7, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of very different lengths around random directions, and the cluster of each in order of first row."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((clusters, dim)) / np.sqrt(dim)
    owners = np.concatenate([np.arange(clusters), draw.integers(clusters, size=rows - clusters)])
    g = centres[owners] + noise * draw.standard_normal((rows, dim)) / np.sqrt(dim)
    return (g * np.exp(draw.standard_normal((rows, 1)))).astype(np.float32), owners


@pytest.mark.parametrize("method", METHODS)
def test_planted_clusters_are_found_and_numbered_by_their_first_row(method):
    g, owners = planted(300, 12)
    assert (cluster_rows(g, 12, method) == owners).all()
    shuffled = np.random.default_rng(1).permutation(300)
    found = cluster_rows(g[shuffled], 12, method)
    first = [int(np.flatnonzero(found == label)[0]) for label in range(12)]
    assert first == sorted(first)
    pairs = {(int(a), int(b)) for a, b in zip(found, owners[shuffled], strict=True)}
    assert len(pairs) == 12  # each cluster is one of the planted ones


@pytest.mark.parametrize("method", METHODS)
def test_rows_too_many_for_a_graph_are_gathered_first(monkeypatch, method):
    monkeypatch.setattr(clustering, "LARGEST_GRAPH", 200)
    monkeypatch.setattr(clustering, "CENTRES", 80)
    seen = []
    real = clustering._METHODS[method]
    monkeypatch.setitem(clustering._METHODS, method, lambda x, *rest: seen.append(len(x)) or real(x, *rest))
    g, owners = planted(1500, 10, noise=0.5)
    assert (cluster_rows(g, 10, method) == owners).all()
    assert 10 < seen[0] <= 80


@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_same_bits_for_a_seed_and_any_number_of_threads(monkeypatch, method, gathered):
    if gathered:
        monkeypatch.setattr(clustering, "LARGEST_GRAPH", 100)
        monkeypatch.setattr(clustering, "CENTRES", 90)
    g = np.random.default_rng(2).standard_normal((400, 30)).astype(np.float32)  # nothing to find: every rounding counts
    found = []
    for threads in (1, 2, 2):
        with threadpool_limits(threads):
            found.append(cluster_rows(g, 25, method, seed=5))
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all()
    assert len(np.unique(found[0])) == 25


def test_the_callers_threads_are_given_back():
    before = torch.get_num_threads()
    cluster_rows(planted(60, 3)[0], 3)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("method", METHODS)
def test_rows_without_a_direction_are_put_aside(method):
    g, owners = planted(120, 5)
    broken = np.insert(g, [0, 50, 120, 120], 0, axis=0)
    broken[-1, 3], broken[-2, 0] = np.nan, np.inf
    found = cluster_rows(broken, 5, method)
    assert np.flatnonzero(found == ALONE).tolist() == [0, 51, 122, 123]
    assert (found[found != ALONE] == owners).all()
    assert (cluster_rows(np.zeros((4, 3)), 2, method) == ALONE).all()
    assert cluster_rows(np.zeros((0, 3)), 2, method).shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_directions_than_clusters(method):
    directions = np.eye(4, dtype=np.float32)[[2, 0, 2, 1, 0, 1, 1]]
    g = directions * np.array([1, 3, 0.7, 11, 5, 1.3, 2], np.float32)[:, None]
    assert cluster_rows(g, 5, method).tolist() == [0, 1, 0, 2, 1, 2, 2]
    assert cluster_rows(g, 3, method).tolist() == [0, 1, 0, 2, 1, 2, 2]
    assert cluster_rows(-g[:1], 1, method).tolist() == [0]


@pytest.mark.parametrize("method", METHODS)
def test_as_many_clusters_as_rows_less_one(method):
    g = np.random.default_rng(3).standard_normal((9, 20))
    g[8] = g[2] + 0.01 * g[1]
    assert cluster_rows(g, 8, method).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 2]


def test_parts_of_the_graph_that_no_edge_joins(recwarn):
    g = np.kron(np.eye(3), np.ones((5, 2))) + 0.01 * np.random.default_rng(4).standard_normal((15, 6))
    assert cluster_rows(np.abs(g) * (g > 0.5), 3).tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert not recwarn.list


def test_the_graph_is_the_clipped_cosine_cubed():
    x = np.array([[1, 0], [0.6, 0.8], [-1, 0]])
    np.testing.assert_allclose(cosine_graph(x), [[1, 0.216, 0], [0.216, 1, 0], [0, 0, 1]], atol=1e-15)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(GradexError, match=r"clusters need scikit-learn: pip install 'gradex_fast\[clusters\]'"):
        cluster_rows(planted(30, 3)[0], 3)
