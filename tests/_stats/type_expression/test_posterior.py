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


def test_independent_residual_is_divided_by_variance(variation):
    """The residual of a gene is divided as in a Gaussian model of a shared deviation, one of each type, and noise."""
    shared, independent = variation.deviations(np.random.default_rng(1).normal(size=(5, 40)))
    parts = np.random.default_rng(2).dirichlet(np.ones(3), (5, 40))
    squares = (parts**2).sum(axis=2)
    common = variation.repeatability * variation.variance - 0.02 * squares
    noise = variation.variance - common - 0.02 * squares
    regular = (common > 0) & (noise > 0)
    assert regular.mean() > 0.2
    for kind in range(3):
        found = type_deviations(variation, shared, independent, parts[:, :, kind], squares) - shared
        # covariance of the deviation of the type with the residual over the variance of the residual
        expected = independent * (common + 0.02 * parts[:, :, kind]) / (common + 0.02 * squares + noise)
        np.testing.assert_allclose(found[regular], expected[regular])


def test_single_type_gives_the_repeatable_residual(variation):
    shared, independent = variation.deviations(np.random.default_rng(1).normal(size=(5, 40)))
    ones = np.ones((5, 40))
    found = type_deviations(variation, shared, independent, ones, ones) - shared
    repeatable = np.maximum(variation.repeatability * variation.variance, 0.02) / np.maximum(variation.variance, 0.02)
    np.testing.assert_allclose(found, independent * repeatable)


def test_noise_of_bulk_is_not_assigned_to_cells():
    rng = np.random.default_rng(0)
    technical = np.outer(rng.normal(size=30), rng.normal(size=100))
    variation = fit_donor_variation(technical + 0.1 * rng.normal(size=(30, 100)), 0.1 * rng.normal(size=(30, 100)), 0.0)
    new = np.outer(rng.normal(size=10), technical[0])
    shared, _ = variation.deviations(new)
    assert variation.repeatability < 0.1
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
