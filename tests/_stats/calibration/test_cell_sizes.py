from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.calibration.cell_sizes import independent_share, size_step, slope_by_log_sizes
from scdeconv._stats.expression import log_shares


def log_size_error(sizes, truth):
    ratio = np.log(np.asarray(sizes) / truth)
    return float(np.abs(ratio - ratio.mean()).max())


def numerical_slopes(fractions, profiles):
    """Derivative of log expression by log sizes, samples x genes x types."""
    at = lambda log: log_shares(fractions @ (profiles * np.exp(log)[:, None]))
    return np.stack([(at(step) - at(-step)) / 2e-5 for step in 1e-5 * np.eye(len(profiles))], axis=2)


def test_slope_equals_finite_differences():
    rng = np.random.default_rng(1)
    fractions, profiles = rng.dirichlet(np.ones(3), 5), rng.gamma(1, 1, (3, 20))
    for composition, slope in zip(fractions, numerical_slopes(fractions, profiles), strict=True):
        np.testing.assert_allclose(slope_by_log_sizes(composition, profiles), slope.T, atol=1e-8)


def test_slope_without_cells_is_zero():
    assert not slope_by_log_sizes(np.array([0.5, 0.5]), np.zeros((2, 6))).any()


def test_independent_share_is_one_for_independent_genes():
    rng = np.random.default_rng(0)
    assert independent_share(rng.normal(size=(200, 50))) > 0.9
    copies = np.repeat(rng.normal(size=(200, 5)), 10, axis=1)
    assert independent_share(copies) == pytest.approx(0.1, abs=0.02)


def test_size_step_equals_a_dense_posterior_mode():
    """All residuals as one vector, shifts integrated out: their covariance is within genes over samples."""
    rng = np.random.default_rng(0)
    n, n_genes, n_types, shift_variance = 4, 20, 3, 0.3
    fractions, profiles = rng.dirichlet(np.ones(n_types), n), rng.gamma(1, 1, (n_types, n_genes))
    variance, residuals = rng.uniform(0.1, 0.4, n_genes), rng.normal(0, 0.3, (n, n_genes))
    slopes = numerical_slopes(fractions, profiles)
    precision, target = np.zeros((n_types, n_types)), np.zeros(n_types)
    for gene in range(n_genes):
        inverse = np.linalg.inv(variance[gene] * np.eye(n) + shift_variance)
        precision += slopes[:, gene].T @ inverse @ slopes[:, gene]
        target += slopes[:, gene].T @ inverse @ residuals[:, gene]
    deviations = residuals - residuals.mean(axis=0)
    correlation = np.corrcoef(deviations.T)
    excess = max(0.0, (correlation**2).sum() - n_genes - n_genes * (n_genes - 1) / (n - 1))
    trust = 1 / (1 + excess / n_genes)
    expected = np.linalg.solve(trust * precision + np.eye(n_types) / 0.3**2, trust * target)
    found = size_step(residuals, fractions, profiles, variance, shift_variance)
    np.testing.assert_allclose(found, expected - expected.mean(), atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_estimated_cell_sizes_approach_the_truth(plant, seed):
    sizes = np.array([1.0, 2.0, 0.7, 3.0])
    planted = plant(15, seed=seed, concentration=0.7, sizes=sizes, claimed=sizes * np.array([2.0, 0.6, 1.3, 0.7]))
    found = planted.fit()
    np.testing.assert_array_equal(found.cell_size_umi, planted.claimed)
    assert log_size_error(found.cell_size, sizes) < 0.5 * log_size_error(planted.claimed, sizes)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_true_cell_sizes_are_kept(plant, seed):
    sizes = np.array([1.0, 2.0, 0.7, 3.0])
    found = plant(15, seed=seed, concentration=0.7, sizes=sizes).fit()
    assert log_size_error(found.cell_size, sizes) < 0.15


def test_learned_sizes_scale_profiles_but_not_their_mean(plant):
    planted = plant(15, concentration=0.7, claimed=np.array([2.0, 0.6, 1.3, 0.7]))
    found = planted.fit()
    factor = found.cell_size / found.cell_size_umi
    np.testing.assert_allclose(found.profiles, planted.profiles * factor[:, None])
    assert np.log(factor).mean() == pytest.approx(0, abs=1e-10)
