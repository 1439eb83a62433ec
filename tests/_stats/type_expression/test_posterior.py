"""Posterior expression of single samples against the dense Gaussian formulas and planted variances."""

from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.type_expression.posterior import (
    OFFSET_SD,
    fit_donor_variation,
    own_variance_of_types,
    type_deviations,
)


@pytest.fixture
def variation():
    rng = np.random.default_rng(0)
    programme = rng.normal(size=(12, 2)) @ rng.normal(size=(2, 40))
    bulk = programme + 0.3 * rng.normal(size=(12, 40))
    return fit_donor_variation(bulk, programme + 0.2 * rng.normal(size=(12, 40)), 0.02)


def test_deviations_equal_the_dense_gaussian_posterior(variation):
    residuals = np.random.default_rng(1).normal(size=(5, 40))
    covariance = variation.bulk.T @ variation.bulk + OFFSET_SD**2 + np.diag(variation.variance)
    with_cells = variation.cells.T @ variation.bulk
    shared, independent = variation.deviations(residuals)
    for sample in range(5):
        inverse = np.linalg.solve(covariance, residuals[sample])
        np.testing.assert_allclose(shared[sample], with_cells @ inverse, rtol=1e-8)
        np.testing.assert_allclose(independent[sample], variation.variance * inverse, rtol=1e-8, atol=1e-12)


def test_type_with_all_expression_takes_its_own_residual(variation):
    """The part of a type is its share of the variance: a type that gives all reads of a gene takes own / total."""
    shared, independent = variation.deviations(np.random.default_rng(1).normal(size=(5, 40)))
    ones = np.ones((5, 40))
    own = type_deviations(variation, shared, independent, ones, ones) - shared
    np.testing.assert_allclose(own, independent * 0.02 / np.maximum(variation.variance, 0.02))
    none = type_deviations(variation, shared, independent, 0 * ones, ones)
    np.testing.assert_array_equal(none, shared)


def test_noise_of_bulk_alone_is_not_assigned_to_cells():
    rng = np.random.default_rng(0)
    technical = np.outer(rng.normal(size=30), rng.normal(size=100))
    variation = fit_donor_variation(technical + 0.1 * rng.normal(size=(30, 100)), 0.1 * rng.normal(size=(30, 100)), 0.0)
    new = np.outer(rng.normal(size=10), technical[0])
    shared, _ = variation.deviations(new)
    assert (shared**2).sum() < 0.02 * (new**2).sum()


@pytest.mark.parametrize("own", [0.0, 0.04])
def test_planted_own_variance_is_recovered(own):
    rng = np.random.default_rng(0)
    profiles = rng.gamma(2, 1, (3, 400))
    n_cells = rng.integers(20, 400, (20, 3)).astype(float)
    shared = 0.15 * rng.normal(size=(20, 1, 400))
    expected = n_cells[:, :, None] * profiles * (1 + shared + np.sqrt(own) * rng.normal(size=(20, 3, 400)))
    counts = rng.poisson(rng.gamma(2 * n_cells[:, :, None], np.maximum(expected, 0) / (2 * n_cells[:, :, None])))
    found = own_variance_of_types(counts, counts.sum(axis=2), n_cells, profiles)
    assert found == pytest.approx(own, abs=0.006)


def test_few_counts_give_no_own_variance():
    counts = np.ones((4, 2, 10))
    assert own_variance_of_types(counts, counts.sum(axis=2), np.ones((4, 2)), np.ones((2, 10))) == 0
