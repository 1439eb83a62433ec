"""Trend of the variance against the trend of the generated data."""

from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.type_expression.variance_trend import expected_variance, fit_variance_trend


@pytest.mark.parametrize(
    "truth", [(0, 1.0, 0.04), (50.0, 0, 0.01), (0, 0, 0.09)], ids=["counts", "array", "proportional"]
)
def test_planted_trend_is_recovered(truth):
    rng = np.random.default_rng(0)
    mean = rng.lognormal(4, 2, 5000)
    variance = expected_variance(np.array(truth), mean) * rng.chisquare(10, 5000) / 10
    found = fit_variance_trend(mean, variance)
    common = mean[mean > 5]
    expected = expected_variance(np.array(truth), common)
    np.testing.assert_allclose(expected_variance(found, common), expected, rtol=0.1)


def test_unit_of_expression_does_not_matter():
    rng = np.random.default_rng(0)
    mean, variance = rng.lognormal(2, 1, 500), rng.lognormal(2, 1, 500)
    found = expected_variance(fit_variance_trend(mean, variance), mean)
    scaled = expected_variance(fit_variance_trend(1e6 * mean, 1e12 * variance), 1e6 * mean)
    np.testing.assert_allclose(scaled, 1e12 * found, rtol=1e-6)


def test_genes_without_variance_are_ignored():
    mean, variance = np.array([1.0, 2, 4, 0]), np.array([0.1, 0.4, 1.6, 0])
    np.testing.assert_allclose(fit_variance_trend(mean, variance), [0, 0, 0.1], atol=1e-9)
    np.testing.assert_array_equal(fit_variance_trend(mean, 0 * mean), [0, 0, 1])
