from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.mixing import concentrations, gene_relevance, mix_rows, residual_weights


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("total", [0.5, 2.0])
def test_donors_have_equal_weight_on_average(rng, total):
    donors = np.array(["a", "b", "b", "c", "c", "c", "d"])
    shape = concentrations(donors, total)
    weights = rng.dirichlet(shape, 40_000)
    by_donor = np.stack([weights[:, donors == donor].sum(axis=1) for donor in "abcd"], axis=1)
    np.testing.assert_allclose(by_donor.mean(axis=0), 0.25, atol=0.01)
    expected = (1 + total / 4) / (1 + total)
    assert (by_donor**2).sum(axis=1).mean() == pytest.approx(expected, rel=0.01)


def test_noise_has_the_covariance_of_the_residuals(rng):
    fractions = rng.dirichlet(np.ones(3), 12)
    log = rng.normal(size=(12, 5))
    design = np.column_stack([np.ones(12), fractions[:, :2]])
    residuals = log - design @ np.linalg.lstsq(design, log, rcond=None)[0]
    noise = residual_weights(fractions) @ log
    np.testing.assert_allclose(noise.T @ noise, residuals.T @ residuals / 9, atol=1e-12)


def test_no_noise_without_degrees_of_freedom(rng):
    fractions = rng.dirichlet(np.ones(6), 5)
    assert not residual_weights(fractions).any()


def test_relevance_is_the_adjusted_largest_correlation(rng):
    fractions, x = rng.dirichlet(np.ones(4), 10), rng.normal(size=(10, 30))
    squared = [max(np.corrcoef(gene, fraction)[0, 1] ** 2 for fraction in fractions.T) for gene in x.T]
    adjusted = np.maximum(1 - (1 - np.array(squared)) * 9 / 8, 0.01)
    np.testing.assert_allclose(gene_relevance(x, fractions), adjusted / np.sqrt((adjusted**2).mean()))


@pytest.mark.parametrize("n_samples", [1, 2, 3])
def test_constant_genes_and_few_samples_are_finite(rng, n_samples):
    fractions = rng.dirichlet(np.ones(4), n_samples)
    found = gene_relevance(np.ones((n_samples, 6)), fractions)
    np.testing.assert_allclose(found, 1)


def test_mixtures_are_convex_combinations_of_rows(rng):
    linear, fractions = rng.lognormal(size=(5, 4)), rng.dirichlet(np.ones(3), 5)
    mixed, composition = mix_rows(linear, fractions, np.arange(5), 1.0, 50, rng)
    assert mixed.shape == (50, 4)
    np.testing.assert_allclose(composition.sum(axis=1), 1)
    # with as many rows as genes and one more, the weights follow from the mixtures
    table = np.vstack([linear.T, np.ones(5)])
    weights = np.linalg.lstsq(table, np.vstack([mixed.T, np.ones(50)]), rcond=None)[0]
    np.testing.assert_allclose(weights.T @ fractions, composition, atol=1e-8)
    assert weights.min() > -1e-8
