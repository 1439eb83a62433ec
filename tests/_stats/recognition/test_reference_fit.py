from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.recognition.reference_fit import compare_with_fit


@pytest.fixture
def shares():
    rng = np.random.default_rng(0)
    values = rng.gamma(0.5, size=(4, 60))
    return values / values.sum(axis=1, keepdims=True)


def test_measures_equal_a_slow_loop(shares):
    rng = np.random.default_rng(1)
    fit = shares * rng.lognormal(0, 1.5, shares.shape)
    fit /= fit.sum(axis=1, keepdims=True)
    found = compare_with_fit(1000 * shares, 7 * fit)
    level = 0.1 / 60
    ratios = [[np.log2((shares[i, g] + level) / (fit[i, g] + level)) for g in range(60)] for i in range(4)]
    assert found.log2_ratio == pytest.approx(np.median(ratios, axis=0))
    assert found.variation == pytest.approx([np.std([row[g] for row in ratios], ddof=1) for g in range(60)])
    for i in range(4):
        logs = np.log(shares[i] + level), np.log(fit[i] + level)
        assert found.correlation[i] == pytest.approx(np.corrcoef(*logs)[0, 1])
        assert found.unexplained[i] == pytest.approx(sum(shares[i, g] for g in range(60) if ratios[i][g] > 3))
    assert found.bulk == pytest.approx(1e6 * shares.mean(axis=0))
    assert found.fit == pytest.approx(1e6 * fit.mean(axis=0))


def test_perfect_fit_leaves_nothing_unexplained(shares):
    found = compare_with_fit(shares, 3 * shares)
    assert found.log2_ratio == pytest.approx(0, abs=1e-12)
    assert found.correlation == pytest.approx(1)
    assert not found.unexplained.any()


def test_gene_without_source_is_unexplained(shares):
    fit = shares.copy()
    fit[:, 5] = 0
    bulk = shares.copy()
    bulk[:, 5] = 0.5
    found = compare_with_fit(bulk, fit)
    assert found.log2_ratio.argmax() == 5
    assert found.unexplained == pytest.approx(bulk[:, 5] / bulk.sum(axis=1))


def test_variation_of_one_sample_is_unknown(shares):
    assert np.isnan(compare_with_fit(shares[:1], shares[:1]).variation).all()
