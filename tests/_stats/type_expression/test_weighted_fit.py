"""Weighted least squares against statsmodels."""

from __future__ import annotations

import numpy as np
import statsmodels.api as sm

from scdeconv._stats.type_expression.weighted_fit import fit_weighted


def test_coefficients_equal_weighted_least_squares_of_statsmodels():
    rng = np.random.default_rng(1)
    values, columns, batch = rng.gamma(5, 1, (60, 8)), rng.normal(size=(60, 6)), rng.normal(size=(60, 1))
    fitted, sd = rng.gamma(5, 1, values.shape), rng.gamma(5, 1, values.shape)
    pairs = tuple(np.indices((7, 7)).reshape(2, -1))
    found = fit_weighted(values, columns, batch, fitted, sd, pairs)
    for gene in range(8):
        design = np.column_stack([columns, batch[:, 0] * fitted[:, gene]])
        expected = sm.WLS(values[:, gene], design, weights=1 / sd[:, gene] ** 2).fit()
        np.testing.assert_allclose(found.coefficients[:, gene], expected.params, rtol=1e-6)
        np.testing.assert_allclose(found.variance[gene], expected.scale, rtol=1e-8)
        covariance = expected.cov_params() / expected.scale
        np.testing.assert_allclose(found.covariances[:, gene].reshape(7, 7), covariance, rtol=1e-6, atol=1e-12)
