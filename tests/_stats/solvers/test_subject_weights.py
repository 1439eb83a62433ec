"""Least squares weighted by the variance between subjects, against MuSiC written out sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.least_squares import solve_weighted
from scdeconv._stats.solvers import subject_weights
from scdeconv._stats.solvers.subject_weights import (
    SubjectStatistics,
    choose_markers,
    explained_variance,
    fit_weighted,
    subject_statistics,
    variance_of_fractions,
)


def toy(seed=0, n_types=5, n_genes=80, n_samples=12, n_subjects=6):
    """Statistics over subjects and bulk with zeros and a platform shift."""
    rng = np.random.default_rng(seed)
    abundance = rng.gamma(0.5, 1, (n_types, n_genes)) * np.exp(rng.normal(0, 0.4, (n_subjects, n_types, n_genes)))
    totals = abundance.sum(axis=2)
    statistics = subject_statistics(abundance, totals, rng.uniform(1000, 4000, (n_subjects, n_types)))
    bulk = rng.dirichlet(np.ones(n_types), n_samples) @ statistics.design * np.exp(rng.normal(0, 0.8, n_genes))
    bulk = rng.poisson(0.02 * bulk).astype(float)
    return statistics, 100 * bulk / bulk.sum(axis=1, keepdims=True)


def test_gene_weights_equal_the_closed_form(monkeypatch):
    """One type, so least squares is a ratio of sums: first round from plain least squares, second from the first."""
    d, b, sigma, size = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 3.0]), np.array([0.5, 0.0, 1e-3]), 2.0
    statistics = SubjectStatistics(d[None] / size, sigma[None], np.array([size]))
    x = (d @ b) / (d @ d)
    for quirk in (True, False):
        first = 1 / (1e-4 + (b - d * x) ** 2 + (x * size) ** 2 * sigma)
        y = (first * d) @ b / ((first * d) @ d)
        r = (b - d * y) * (np.sqrt(first) if quirk else 1)
        second = 1 / (1e-4 + r**2 + (y * size) ** 2 * sigma)
        for rounds, weights in enumerate((first, second)):
            monkeypatch.setattr(subject_weights, "MAX_ITERATIONS", rounds)
            fit = fit_weighted(b[None], statistics, weighted_residuals=quirk)
            np.testing.assert_allclose(fit.gene_weights[0], weights, rtol=1e-10)
            np.testing.assert_allclose(fit.weights[0, 0], (weights * d) @ b / ((weights * d) @ d), rtol=1e-10)


@pytest.mark.parametrize("quirk", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_all_samples_at_once_equal_single_samples(seed, quirk, music_by_loops):
    statistics, bulk = toy(seed)
    assert (bulk == 0).any()
    fit = fit_weighted(bulk, statistics, weighted_residuals=quirk)
    plain = solve_weighted(statistics.design, bulk, (bulk > 0).astype(float))
    r_squared = explained_variance(bulk, statistics.design, fit)
    variance = variance_of_fractions(bulk, statistics.design, fit)
    assert fit.converged.all()
    assert len(set(fit.iterations)) > 1
    for row, y in enumerate(bulk):
        used = y > 0
        design, sigma = statistics.design.T[used], statistics.variance[:, used]
        oracle = music_by_loops(y[used], design, statistics.size, sigma, quirk=quirk)
        np.testing.assert_allclose(plain[row], oracle["nnls"], atol=1e-7 * oracle["nnls"].max())
        np.testing.assert_allclose(fit.weights[row], oracle["x"], atol=1e-7 * oracle["x"].max())
        np.testing.assert_allclose(fit.gene_weights[row, used], oracle["w"], rtol=1e-5)
        assert (fit.gene_weights[row, ~used] == 0).all()
        assert fit.iterations[row] == oracle["rounds"]
        np.testing.assert_allclose(r_squared[row], oracle["r_squared"], rtol=1e-7)
        np.testing.assert_allclose(variance[row], oracle["variance"], rtol=1e-5)


def test_samples_that_do_not_converge_are_reported(monkeypatch):
    statistics, bulk = toy()
    monkeypatch.setattr(subject_weights, "MAX_ITERATIONS", 4)
    fit = fit_weighted(bulk, statistics)
    assert 0 < fit.converged.sum() < len(bulk)
    assert (fit.iterations[~fit.converged] == 4).all()


def test_variance_of_orthogonal_types_is_the_closed_form():
    """Types without common genes are independent: noise / (d' W d) / (sum x)^2."""
    design = np.array([[1.0, 2.0, 3.0, 0, 0, 0], [0, 0, 0, 2.0, 2.0, 1.0]])
    b = np.array([[1.1, 1.9, 3.2, 4.1, 3.8, 2.0]])
    statistics = SubjectStatistics(design, np.full_like(design, 0.01), np.ones(2))
    fit = fit_weighted(b, statistics)
    w, x = fit.gene_weights[0], fit.weights[0]
    noise = (w * (b[0] - x @ design) ** 2).mean()
    expected = noise / (design**2 @ w) / x.sum() ** 2
    np.testing.assert_allclose(variance_of_fractions(b, design, fit)[0], expected, rtol=1e-8)


def test_variance_of_collinear_types_is_huge():
    statistics, bulk = toy()
    design = statistics.design.copy()
    design[1], design[4] = design[0], 0
    variance = variance_of_fractions(
        bulk, design, fit_weighted(bulk, SubjectStatistics(design, 0 * design, np.ones(5)))
    )
    assert (variance[:, :2] > 1e3 * variance[:, 2:4].max()).all()
    assert np.isinf(variance[:, 4]).all()


def test_markers_are_large_certain_differences():
    """Two of eight genes for each type, without the noisy gene 0 and gene 5, whose variance is zero by chance."""
    difference = np.array([8.0, 6, 4, 2, -1, 0.1, 0, 0])
    mean, variance = np.vstack([10 + difference, np.full(8, 10.0), np.full(8, 99.0)]), np.ones((3, 8))
    variance[:, 0], variance[:, 5] = 400, 0
    markers = choose_markers(mean, variance, np.array([[1, 1, 0], [0, 0, 1]], dtype=bool))
    assert [np.flatnonzero(row).tolist() for row in markers] == [[1, 2, 4], []]
    assert not choose_markers(mean, variance, np.eye(3, dtype=bool)).any()


@pytest.mark.slow
def test_thousand_samples_of_twenty_types_converge():
    statistics, bulk = toy(n_types=20, n_genes=6000, n_samples=1000)
    fit = fit_weighted(bulk, statistics)
    assert fit.converged.mean() > 0.99
