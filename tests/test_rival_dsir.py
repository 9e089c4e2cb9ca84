"""DSIR against its definition, with n-grams in dictionaries and the hash in Python integers."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import runs
from tiny import random_examples

from gradex_fast.baselines import RIVALS
from gradex_fast.baselines.dsir import BUCKETS, SMOOTHING, buckets_of, dsir, log_ratio, log_weights, resample


def splitmix(value: int) -> int:
    """Steele, Lea and Flood 2014; its first output from state 0 is a published constant."""
    mask = (1 << 64) - 1
    z = (value + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def grams(ids) -> list[int]:
    """The bucket of every unigram and bigram, in plain Python."""
    ids = [int(i) for i in ids]
    single = [splitmix(i + 1) for i in ids]
    return [h % BUCKETS for h in single] + [splitmix(single[t] ^ ids[t + 1]) % BUCKETS for t in range(len(ids) - 1)]


def defined(sources, target) -> list[float]:
    """Minus the mean over each source's rows of log w / n-grams."""
    raw = Counter(b for source in sources for row in source for b in grams(row.input_ids))
    wanted = Counter(b for row in target for b in grams(row.input_ids))
    sizes = sum(raw.values()), sum(wanted.values())

    def weight(row) -> float:
        found = grams(row.input_ids)
        terms = [math.log(wanted[b] / sizes[1] + SMOOTHING) - math.log(raw[b] / sizes[0] + SMOOTHING) for b in found]
        return sum(terms) / len(found)

    return [-sum(map(weight, source)) / len(source) for source in sources]


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    """Its first source has one row."""
    tree = runs.language_tree(inputs, tmp_path_factory.mktemp("dsir") / "run")
    tree["data"]["sources"][0]["limit"] = 1
    return runs.run(tree, until="prepare")


def test_the_hash_is_splitmix():
    assert splitmix(0) == 0xE220A8397B1DCDAF
    for row in random_examples([1, 2, 9, 30]):
        assert buckets_of(row).tolist() == grams(row.input_ids)
        assert len(buckets_of(row)) == 2 * len(row.input_ids) - 1


def test_scores_are_the_definition(run):
    corpus = run.corpus
    target = [*corpus.train.examples, *corpus.validation.examples]
    expected = defined([source.examples for source in corpus.sources], target)
    found = dsir(run)
    np.testing.assert_allclose(found.score, expected, rtol=1e-12)
    assert np.isnan([found.low[0], found.high[0]]).all()  # one row has no spread
    assert (found.low[1:] < found.score[1:]).all() and (found.score[1:] < found.high[1:]).all()


def test_test_rows_do_not_count(run, inputs, tmp_path):
    tree = runs.language_tree(inputs, tmp_path / "run")
    tree["data"]["sources"][0]["limit"] = 1
    del tree["data"]["target"]["test"]
    np.testing.assert_array_equal(dsir(runs.run(tree, until="prepare")).score, dsir(run).score)


def test_a_source_of_the_targets_own_words_comes_first():
    """Rows of one vocabulary against rows of another: log w tells them apart at every length."""
    draw = np.random.default_rng(0)
    alike = [draw.integers(2, 12, size) for size in (3, 40, 9)]
    other = [draw.integers(12, 23, size) for size in (4, 30, 11)]
    rows = [np.array(grams(ids)) for ids in (*alike, *other)]
    target = [np.array(grams(draw.integers(2, 12, 200)))]
    weights = log_weights(rows, log_ratio(rows, target))
    assert weights[:3].min() > weights[3:].max()
    assert set(resample(weights, 3)) == {0, 1, 2}


def test_resampling_is_in_proportion_to_the_weights():
    weights = np.log([1.0, 2.0, 5.0, 0.5, 1.5])
    drawn = np.bincount([resample(weights, 1, seed)[0] for seed in range(4000)], minlength=5)
    share = np.exp(weights) / np.exp(weights).sum()
    error = np.sqrt(share * (1 - share) / 4000)
    assert (np.abs(drawn / 4000 - share) < 4 * error).all()
    everything = resample(weights, 5)
    assert everything.tolist() == [0, 1, 2, 3, 4]  # without replacement
    assert resample(weights, 2, seed=3).tolist() == resample(weights, 2, seed=3).tolist()


def test_no_model_is_touched(run):
    cost = RIVALS["dsir"](run).cost
    assert (cost.forward_rows, cost.backward_rows) == (0, 0) and cost.seconds > 0
