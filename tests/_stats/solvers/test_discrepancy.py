"""Discrepant genes against a loop of t-tests, and the weighted fit against scipy's non-negative least squares."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls
from scipy.stats import ttest_rel

from scdeconv._stats.solvers.discrepancy import SCALE, find_discrepant_genes, solve_discrepancy_weighted


@pytest.fixture
def pairs():
    """Bulk and pseudobulk of eight samples; the first 10 of 60 genes differ 4-fold."""
    rng = np.random.default_rng(0)
    pseudobulk = rng.gamma(5, 100, 60) * np.exp(rng.normal(0, 0.2, (8, 60)))
    bulk = pseudobulk * np.exp(rng.normal(0, 0.2, (8, 60)))
    bulk[:, :10] *= 4
    return bulk, pseudobulk


@pytest.fixture
def mixtures():
    """Profiles of four types, and five samples with relative noise and a sum of 100,000."""
    rng = np.random.default_rng(1)
    signature = rng.gamma(0.5, 100, (4, 80))
    bulk = rng.dirichlet(np.ones(4), 5) @ signature * np.exp(rng.normal(0, 0.3, (5, 80)))
    return signature, SCALE * bulk / bulk.sum(axis=1, keepdims=True)


def solve_by_hand(signature, sample, *, weighted):
    """The loop of the original: one weighted problem after the other, until the fractions change by little."""
    n_types = len(signature)
    solution = nnls(signature.T, sample)[0]
    fitted, residual = solution @ signature, sample - solution @ signature
    fractions = None
    for _ in range(2001):
        root = np.sqrt(1 / (residual**2 + fitted**2 + 2))
        solution = nnls((signature * root).T, sample * root)[0]
        fitted, residual = solution @ signature, sample - solution @ signature
        if weighted:
            fitted, residual = fitted * root, residual * root
        new = solution / solution.sum()
        if fractions is not None and np.abs(new - fractions).sum() < n_types * 0.001:
            return new, True
        fractions = new
    return fractions, False


def test_discrepant_genes_equal_a_loop_of_tests(pairs):
    bulk, pseudobulk = ([sample / sample.sum() for sample in side] for side in pairs)
    p = np.array([ttest_rel([s[g] for s in bulk], [s[g] for s in pseudobulk]).pvalue for g in range(60)])
    # Benjamini and Hochberg: the smallest p n / rank of all larger p-values
    rate = [min(q * 60 / (p <= q).sum() for q in p[p >= p[g]]) for g in range(60)]
    change = np.abs(np.log2(np.mean(bulk, axis=0) / np.mean(pseudobulk, axis=0)))
    expected = (np.array(rate) <= 0.05) & (change >= 0.75)
    assert 5 <= expected.sum() < 60
    np.testing.assert_array_equal(find_discrepant_genes(*pairs), expected)


def test_equal_expression_is_not_discrepant(pairs):
    assert not find_discrepant_genes(pairs[0], pairs[0]).any()


def test_genes_without_expression_are_not_tested(pairs):
    bulk, pseudobulk = (np.hstack([side, np.zeros((8, 1))]) for side in pairs)
    np.testing.assert_array_equal(find_discrepant_genes(bulk, pseudobulk)[:60], find_discrepant_genes(*pairs))


def test_only_the_most_expressed_genes_are_kept(pairs, monkeypatch):
    every = np.flatnonzero(find_discrepant_genes(*pairs))
    monkeypatch.setattr("scdeconv._stats.solvers.discrepancy.MAX_GENES", 3)
    kept = np.flatnonzero(find_discrepant_genes(*pairs))
    shares = sum((side / side.sum(axis=1, keepdims=True)).mean(axis=0) for side in pairs)
    assert set(kept) == set(every[np.argsort(-shares[every])[:3]])


@pytest.mark.parametrize("weighted", [False, True])
def test_solutions_equal_the_plain_loop(mixtures, weighted, monkeypatch):
    signature, bulk = mixtures
    found, converged = solve_discrepancy_weighted(signature, bulk, weighted_residuals=weighted)
    expected = [solve_by_hand(signature, sample, weighted=weighted) for sample in bulk]
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), [x for x, _ in expected], atol=1e-6)
    np.testing.assert_array_equal(converged, [done for _, done in expected])
    assert converged.all() or weighted


def test_samples_converge_independently(mixtures):
    signature, bulk = mixtures
    together, _ = solve_discrepancy_weighted(signature, bulk)
    alone, _ = solve_discrepancy_weighted(signature, bulk[3:4])
    np.testing.assert_allclose(alone, together[3:4], rtol=1e-9)
