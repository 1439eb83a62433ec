"""Profiles of the types against scipy."""

from __future__ import annotations

import numpy as np
import statsmodels.api as sm
from scipy.optimize import nnls
from scipy.stats import gstd

from scdeconv._stats.type_expression.profiles import (
    geometric_cv,
    noise_threshold,
    regress_on_fractions,
    standard_errors,
)


def test_coefficients_equal_those_of_scipy_for_each_gene():
    rng = np.random.default_rng(0)
    fractions, bulk = rng.dirichlet(np.ones(4), 30), rng.gamma(1, 10, (30, 50))
    found = regress_on_fractions(fractions, bulk)
    assert (found == 0).any()
    for gene in range(50):
        np.testing.assert_allclose(found[:, gene], nnls(fractions, bulk[:, gene])[0], atol=1e-7)


def test_unconstrained_standard_errors_equal_least_squares():
    rng = np.random.default_rng(0)
    fractions = rng.dirichlet(np.ones(3), 40)
    bulk = fractions @ rng.uniform(50, 100, (3, 20)) + rng.normal(0, 2, (40, 20))
    errors = standard_errors(fractions, bulk, regress_on_fractions(fractions, bulk))
    for gene in range(20):
        np.testing.assert_allclose(errors[:, gene], sm.OLS(bulk[:, gene], fractions).fit().bse)


def test_geometric_variation_equals_scipy():
    values = np.random.default_rng(0).lognormal(1, 0.5, (30, 2, 5))
    expected = np.sqrt(np.exp(np.log(gstd(values, axis=0)) ** 2) - 1)
    values[3, 1, 2], expected[1, 2] = 0, np.inf
    np.testing.assert_allclose(geometric_cv(values), expected)


def test_noise_threshold_equals_a_plain_loop():
    rng = np.random.default_rng(0)
    cv = rng.gamma(1, 1, 200)
    significant = rng.random(200) > cv / 4
    cv[:10] = np.inf
    best = 0.0
    for candidate in cv[np.isfinite(cv)]:
        if (~significant[cv <= candidate]).mean() <= 0.05:
            best = max(best, candidate)
    assert 0 < best < cv[np.isfinite(cv)].max()
    assert noise_threshold(cv, significant) == best
    assert noise_threshold(cv, np.zeros(200, bool)) == 0
