from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.calibration.noise_factors import MAX_FACTORS, factor_noise, limit_factors
from scdeconv._stats.expression import log_shares
from scdeconv._stats.shrinkage import correlation_shrinkage, shrink_variances


def decaying(n_factors, n_genes, seed=0):
    """Loadings whose directions have standard deviations 1, 1/2, 1/3, ..."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_factors, n_factors)) @ (
        rng.normal(size=(n_factors, n_genes)) / np.arange(1, n_factors + 1)[:, None]
    )


@pytest.mark.parametrize("n_factors", [0, 1, 7, MAX_FACTORS])
def test_few_factors_are_returned_unchanged(n_factors):
    loadings = decaying(n_factors, 80)
    found, removed = limit_factors(loadings)
    assert found is loadings
    assert not removed.any()


@pytest.mark.parametrize("n_factors", [MAX_FACTORS + 1, 200, 400])
def test_number_of_factors_does_not_grow_with_donors(n_factors):
    found, _ = limit_factors(decaying(n_factors, 300))
    assert found.shape == (MAX_FACTORS, 300)


@pytest.mark.parametrize("n_factors", [101, 200])
def test_limited_factors_keep_the_variance_of_each_gene(n_factors):
    loadings = decaying(n_factors, 150)
    found, removed = limit_factors(loadings)
    np.testing.assert_allclose((found**2).sum(axis=0) + removed, (loadings**2).sum(axis=0), rtol=1e-10)
    assert (removed >= 0).all()


def test_kept_factors_are_the_leading_singular_directions():
    loadings = decaying(120, 200)
    found, _ = limit_factors(loadings, 10)
    _, scales, directions = np.linalg.svd(loadings, full_matrices=False)
    expected = directions[:10].T * scales[:10] ** 2 @ directions[:10]
    np.testing.assert_allclose(found.T @ found, expected, atol=1e-3 * np.abs(expected).max())


def test_limiting_factors_is_deterministic():
    loadings = decaying(150, 120)
    state = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(*(limit_factors(loadings)[0] for _ in range(2)))
    assert np.array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("n_rows", [8, 150])
def test_total_variance_is_the_shrunk_variance(n_rows):
    rng = np.random.default_rng(0)
    deviations = rng.normal(size=(n_rows, 2)) @ rng.normal(size=(2, 130)) + rng.normal(size=(n_rows, 130))
    deviations -= deviations.mean(axis=0)
    variance = shrink_variances(deviations)
    loadings, independent = factor_noise(deviations, variance, np.zeros(130))
    assert len(loadings) == min(n_rows, MAX_FACTORS)
    np.testing.assert_allclose((loadings**2).sum(axis=0) + independent, variance)


def test_counting_variance_is_subtracted_from_independent_variance():
    deviations = np.random.default_rng(0).normal(size=(6, 40))
    deviations -= deviations.mean(axis=0)
    variance, counting = shrink_variances(deviations), np.linspace(0, 3, 40)
    _, independent = factor_noise(deviations, variance, counting)
    intensity, _ = correlation_shrinkage(deviations)
    np.testing.assert_allclose(
        independent, [max(intensity * v - c, 0) for v, c in zip(variance, counting, strict=True)]
    )


@pytest.mark.parametrize("n_donors", [110, 160])
def test_planted_covariance_is_recovered_with_limited_factors(plant, n_donors):
    planted = plant(n_donors, seed=1, factor_sd=0.3)
    found = planted.fit()
    assert len(found.loadings) == MAX_FACTORS
    pairs = np.triu_indices(300, 1)
    learned = (found.loadings.T @ found.loadings)[pairs]
    truth = (planted.loadings.T @ planted.loadings)[pairs]
    assert np.corrcoef(learned, truth)[0, 1] > 0.9
    assert np.polyfit(truth, learned, 1)[0] == pytest.approx(1, abs=0.3)
    total = (found.loadings**2).sum() + (found.residual_sd**2).sum()
    assert total == pytest.approx((planted.loadings**2).sum() + 300 * 0.1**2, rel=0.2)


def test_independent_noise_gives_no_factors(plant):
    found = plant(12, seed=2, factor_sd=0.0, noise_sd=0.3).fit()
    assert (found.loadings**2).sum() < 0.15 * (found.residual_sd**2).sum()
    assert np.median(found.residual_sd) == pytest.approx(0.3, rel=0.15)


def test_factor_correlations_equal_those_of_deviations(plant):
    planted = plant(8, seed=3, counts=False)
    found = planted.fit()
    residuals = log_shares(planted.expression) - found.expected(planted.fractions)
    deviations = residuals - residuals.mean(axis=0)
    learned = found.loadings.T @ found.loadings
    np.testing.assert_allclose(np.diag(learned) + found.residual_sd**2, shrink_variances(deviations), rtol=1e-6)
    scale = np.sqrt(np.diag(learned))
    np.testing.assert_allclose(learned / np.outer(scale, scale), np.corrcoef(deviations.T), atol=1e-6)
