"""Mixtures of profiles: the fixed point and the updated profiles against loops and a general optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from scdeconv._stats.solvers.read_mixtures import (
    FLOOR,
    fixed_point,
    floor_profiles,
    is_outlier,
    lift,
    mix,
    update_profiles,
)


def toy(n_samples=5, n_types=4, n_genes=30):
    rng = np.random.default_rng(3)
    return rng.poisson(rng.gamma(1, 100, (n_samples, n_genes))).astype(float), rng.dirichlet(np.ones(n_genes), n_types)


def by_loops(bulk, profiles, totals, n_iterations):
    """The original, cell type by cell type and gene by gene, for one sample."""
    n_types, n_genes = profiles.shape
    phi = [[profiles[k, g] / totals[k] for g in range(n_genes)] for k in range(n_types)]
    for row in phi:
        if min(row) == 0:
            row[:] = [share * (1 - FLOOR * n_genes) + FLOOR for share in row]
    phi = [[share / sum(row) for share in row] for row in phi]
    smallest = min(min(row) for row in phi)
    phi = [[share + smallest for share in row] for row in phi]
    theta = [1 / n_types] * n_types
    for _ in range(n_iterations):
        new = [0.0] * n_types
        for g in range(n_genes):
            total = sum(theta[k] * phi[k][g] for k in range(n_types))
            for k in range(n_types):
                new[k] += bulk[g] * theta[k] * phi[k][g] / total
        theta = [value / sum(new) for value in new]
    return theta


def test_fixed_point_equals_loops(monkeypatch):
    bulk, counts = toy()
    counts = np.round(counts * 300)
    assert (counts == 0).any()
    totals = 1.1 * counts.sum(axis=1)
    expected = [by_loops(sample, counts, totals, 25) for sample in bulk]
    reference = lift(floor_profiles(counts, totals))
    np.testing.assert_allclose(fixed_point(bulk, reference, 25), expected, rtol=1e-10)
    monkeypatch.setattr("scdeconv._stats.solvers.read_mixtures.BLOCK", 2)
    np.testing.assert_allclose(fixed_point(bulk, reference, 25), expected, rtol=1e-10)


def test_fixed_point_maximises_the_multinomial_likelihood():
    bulk, reference = toy()
    weights = fixed_point(bulk, reference, 20_000)
    slope = (bulk / mix(weights, reference)) @ reference.T / bulk.sum(axis=1, keepdims=True)
    assert (weights < 1e-9).any()
    np.testing.assert_allclose(slope[weights > 1e-6], 1, atol=1e-6)
    assert (slope < 1 + 1e-6).all()
    for sample, found in zip(bulk, weights, strict=True):
        loss = lambda x, sample=sample: -(sample @ np.log(np.exp(x) / np.exp(x).sum() @ reference)) / sample.sum()
        best = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8})
        np.testing.assert_allclose(found, np.exp(best.x) / np.exp(best.x).sum(), atol=1e-3)
        assert -(sample @ np.log(found @ reference)) / sample.sum() <= best.fun + 1e-9


def test_own_profiles_equal_references_of_single_samples():
    bulk, reference = toy()
    own = np.random.default_rng(4).dirichlet(np.ones(30), len(bulk))
    found = fixed_point(bulk, reference, 30, own)
    for row in range(len(bulk)):
        alone = fixed_point(bulk[[row]], np.vstack([reference, own[row]]), 30)
        np.testing.assert_allclose(found[[row]], alone, rtol=1e-10)


def log_posterior(gamma, phi, reads, sigma):
    x = np.log(phi) + gamma
    return reads @ (x - np.log(np.exp(x).sum())) - (gamma**2).sum() / (2 * sigma**2)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_updated_profiles_maximise_the_posterior(sigma):
    rng = np.random.default_rng(0)
    phi = rng.dirichlet(np.full(12, 0.5), 3)
    reads = rng.poisson(rng.gamma(0.5, [[0.1], [5], [500]], (3, 12))).astype(float)
    found = update_profiles(phi * [[1], [3], [1e-6]], reads, sigma)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    for row in range(3):
        best = minimize(lambda x, row=row: -log_posterior(x, phi[row], reads[row], sigma), np.zeros(12), tol=1e-12)
        psi = phi[row] * np.exp(best.x)
        np.testing.assert_allclose(found[row], psi / psi.sum(), atol=1e-4)
        gamma = np.log(found[row] / phi[row])
        gamma -= gamma.mean()
        slope = reads[row] - reads[row].sum() * found[row] - gamma / sigma**2
        np.testing.assert_allclose(slope, 0, atol=1e-6 * max(reads[row].sum(), 1))


def test_wider_priors_move_profiles_towards_the_reads():
    rng = np.random.default_rng(1)
    phi, reads = rng.dirichlet(np.ones(50), 2), rng.poisson(1e4, (2, 50)).astype(float)
    np.testing.assert_allclose(update_profiles(phi, reads, 1e-6), phi, rtol=1e-4)
    np.testing.assert_allclose(update_profiles(phi, reads, 1e3), reads / reads.sum(axis=1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(update_profiles(phi, 1e9 * phi), phi, rtol=1e-6)
    reads[1] = 0
    np.testing.assert_allclose(update_profiles(phi, reads)[1], phi[1])


def test_outliers_have_many_reads_in_many_samples():
    bulk = np.full((10, 3), 100.0)
    bulk[:2, 0] = bulk[2, 1] = 1e4
    assert is_outlier(bulk, 0.4, 0.1).tolist() == [True, False, False]
    assert not is_outlier(bulk, 1, 0.1).any()
