"""The scale on which samples are compared."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import rankdata

from scdeconv._stats.expression import LEVEL, fill_missing, log_cpm, log_shares, quantile_normalise


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(20, (4, 30)).astype(float)


@pytest.fixture
def reference():
    """Shares of 30 genes."""
    return np.random.default_rng(1).dirichlet(np.ones(30))


def test_log_shares_equal_their_formula(counts):
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * LEVEL * 30)
    np.testing.assert_allclose(log_shares(counts), expected)
    assert LEVEL == 10


def test_stacked_tables_equal_single_tables(counts):
    np.testing.assert_allclose(log_shares(np.stack([counts, 2 * counts + 1]))[1], log_shares(2 * counts + 1))


def test_sample_depth_does_not_matter(counts):
    np.testing.assert_allclose(log_shares(counts * 37), log_shares(counts))


def test_sample_without_counts_is_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not log_shares(np.zeros((1, 30))).any()


def test_complete_sample_does_not_depend_on_reference(counts, reference):
    np.testing.assert_allclose(fill_missing(counts, reference), counts / counts.sum(axis=1, keepdims=True))


def test_missing_genes_are_filled_from_the_reference(reference):
    """A sample equal to the reference has the same values with any genes missing."""
    partial = 1e4 * reference[None].repeat(3, axis=0)
    partial[0, :10], partial[1, 5], partial[2, 20:] = np.nan, np.nan, np.nan
    np.testing.assert_allclose(fill_missing(partial, reference), reference[None].repeat(3, axis=0))


def test_filled_shares_keep_ratios_of_measured_genes(counts, reference):
    partial = counts.copy()
    partial[:, :12] = np.nan
    filled = fill_missing(partial, reference)
    np.testing.assert_allclose(filled.sum(axis=1), 1)
    np.testing.assert_allclose(filled[:, :12], np.tile(reference[:12], (4, 1)))
    np.testing.assert_allclose(filled[:, 12:] / filled[:, 12:13], counts[:, 12:] / counts[:, 12:13])


def test_log_cpm_is_log_counts_per_million():
    expression = np.random.default_rng(0).poisson(5, (4, 7))
    for row, values in zip(expression, log_cpm(expression), strict=True):
        np.testing.assert_allclose(values, [np.log(1 + x / sum(row) * 1e6) for x in row])


def test_quantile_normalisation_equals_a_plain_loop():
    samples = np.random.default_rng(0).poisson(3, (4, 25)).astype(float)
    target = np.mean([sorted(sample) for sample in samples], axis=0)
    expected = np.empty_like(samples)
    for i, sample in enumerate(samples):
        for j, rank in enumerate(rankdata(sample) - 1):
            expected[i, j] = (target[int(np.floor(rank))] + target[int(np.ceil(rank))]) / 2
    np.testing.assert_allclose(quantile_normalise(samples, samples), expected)
    some = samples[:, 5:12].copy()
    some[:, 3] = np.nan
    found = quantile_normalise(some, samples)
    np.testing.assert_allclose(np.delete(found, 3, axis=1), np.delete(expected[:, 5:12], 3, axis=1))
    assert np.isnan(found[:, 3]).all()


def test_given_quantiles_replace_the_mean_distribution():
    samples = np.random.default_rng(0).permuted(np.tile(np.arange(25.0), (4, 1)), axis=1)
    target = np.sort(np.random.default_rng(1).normal(size=25))
    found = quantile_normalise(samples, samples, target)
    np.testing.assert_array_equal(found, target[samples.astype(int)])
