"""Latent factors against planted ones."""

from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.type_expression.latent_factors import count_factors, factor_scores


def residuals_of(n_factors, size=1.0, n_samples=60, n_genes=800, seed=0):
    rng = np.random.default_rng(seed)
    scores, loadings = rng.normal(size=(n_samples, n_factors)), rng.normal(size=(n_factors, n_genes))
    values = size * scores @ loadings + rng.normal(size=(n_samples, n_genes))
    return values / np.sqrt((values**2).mean(axis=0)), scores


@pytest.mark.parametrize("n_factors", [0, 1, 4])
def test_planted_number_of_factors_is_found(n_factors):
    for seed in range(5):
        assert count_factors(residuals_of(n_factors, 0.5, seed=seed)[0], 60) == n_factors


def test_factors_use_few_degrees_of_freedom():
    residuals, _ = residuals_of(4)
    assert count_factors(residuals, 9) == 3
    assert count_factors(residuals, 2) == 0


def test_scores_span_the_planted_scores():
    residuals, scores = residuals_of(2)
    found = factor_scores(residuals, residuals, 2)
    left = scores - found @ np.linalg.lstsq(found, scores, rcond=None)[0]
    assert (left**2).sum() < 0.01 * (scores**2).sum()


def test_effects_on_few_genes_do_not_change_scores():
    residuals, scores = residuals_of(1)
    deviations = residuals.copy()
    group = np.arange(60) % 2 - 0.5
    deviations[:, :40] += 5 * group[:, None]
    found = factor_scores(residuals, deviations, 1)[:, 0]
    assert abs(np.corrcoef(found, scores[:, 0])[0, 1]) > 0.99
    plain = factor_scores(residuals, residuals, 1)[:, 0]
    assert np.abs(found - plain).max() < 0.1 * plain.std()


def test_without_factors_there_are_no_scores():
    residuals, _ = residuals_of(0)
    assert factor_scores(residuals, residuals, 0).shape == (60, 0)


def test_few_genes_have_few_factors():
    for n_genes in (1, 2, 5):
        assert count_factors(residuals_of(1, 3.0, n_genes=n_genes)[0], 59) <= n_genes / 3


def test_constant_genes_give_finite_scores():
    residuals = np.zeros((60, 5))
    residuals[:, 0] = np.random.default_rng(0).normal(size=60)
    assert np.isfinite(factor_scores(residuals, residuals, 3)).all()
