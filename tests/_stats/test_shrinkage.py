"""Shrinkage against the formulas as printed, one entry at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from scdeconv._stats.shrinkage import (
    correlation_shrinkage,
    fit_variance_prior,
    moderate_variances,
    shrink_covariance,
    shrink_variances,
    trigamma_inverse,
)


def centred(values):
    return values - values.mean(axis=0)


def unequal(n_samples, n_columns, seed=0):
    """Columns of different variance that share two factors, mean 0."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n_samples, 2)) @ rng.normal(size=(2, n_columns)) + rng.normal(size=(n_samples, n_columns))
    return centred(values * np.linspace(0.5, 3, n_columns))


def variances_by_loops(x):
    """Opgen-Rhein & Strimmer 2007: v* = share * median + (1 - share) * v, share = sum Var(v) / sum (v - median)^2."""
    n, p = x.shape
    v, of_v = [], []
    for k in range(p):
        w = [x[i, k] ** 2 for i in range(n)]
        mean = sum(w) / n
        v.append(n / (n - 1) * mean)
        of_v.append(n / (n - 1) ** 3 * sum((value - mean) ** 2 for value in w))
    median = sorted(v)[p // 2] if p % 2 else sum(sorted(v)[p // 2 - 1 : p // 2 + 1]) / 2
    share = min(1.0, sum(of_v) / sum((value - median) ** 2 for value in v))
    return np.array([share * median + (1 - share) * value for value in v]), share


def correlations_by_loops(x):
    """Schäfer & Strimmer 2005: intensity = sum Var(r) / sum r^2 over pairs of different columns."""
    n, p = x.shape
    z = x / x.std(axis=0, ddof=1)
    of_r = squared = 0.0
    for i in range(p):
        for j in range(p):
            if i == j:
                continue
            w = [z[k, i] * z[k, j] for k in range(n)]
            mean = sum(w) / n
            squared += (n / (n - 1) * mean) ** 2
            of_r += n / (n - 1) ** 3 * sum((value - mean) ** 2 for value in w)
    return min(1.0, of_r / squared), squared


@pytest.mark.parametrize(("n_samples", "n_columns"), [(3, 4), (5, 9), (12, 7), (30, 16)])
@pytest.mark.parametrize("seed", [0, 1])
def test_variances_equal_opgen_rhein_and_strimmer(n_samples, n_columns, seed):
    x = unequal(n_samples, n_columns, seed)
    np.testing.assert_allclose(shrink_variances(x), variances_by_loops(x)[0], rtol=1e-10)


def test_test_data_have_partly_shrunk_variances():
    shares = [variances_by_loops(unequal(*shape, seed))[1] for shape in [(12, 7), (30, 16)] for seed in (0, 1)]
    assert all(0.02 < share < 0.98 for share in shares)


@pytest.mark.parametrize(("n_samples", "n_columns"), [(3, 4), (5, 9), (12, 7), (9, 9), (30, 16)])
@pytest.mark.parametrize("seed", [0, 1])
def test_correlations_equal_the_formula_of_schaefer_and_strimmer(n_samples, n_columns, seed):
    x = unequal(n_samples, n_columns, seed)
    np.testing.assert_allclose(correlation_shrinkage(x), correlations_by_loops(x), rtol=1e-8)


def test_sum_of_squares_equals_the_correlation_matrix():
    x = unequal(15, 20)
    correlation = np.corrcoef(x.T)
    _, squared = correlation_shrinkage(x)
    assert squared == pytest.approx((correlation**2).sum() - 20, rel=1e-10)


def test_fewer_samples_mean_more_shrinkage():
    intensities = [np.mean([correlation_shrinkage(unequal(n, 30, s))[0] for s in range(20)]) for n in (4, 8, 20, 100)]
    assert (np.diff(intensities) < 0).all()
    shares = [np.mean([variances_by_loops(unequal(n, 12, s))[1] for s in range(10)]) for n in (4, 10, 40)]
    assert (np.diff(shares) < 0).all()


def test_many_samples_of_correlated_columns_are_hardly_shrunk():
    x = unequal(5000, 10)
    assert correlation_shrinkage(x)[0] < 0.01
    np.testing.assert_allclose(shrink_variances(x), x.var(axis=0, ddof=1), rtol=0.02)


def test_correlations_of_independent_columns_shrink_to_zero():
    x = centred(np.random.default_rng(0).normal(size=(10, 200)))
    assert correlation_shrinkage(x)[0] > 0.8


def test_equal_variances_are_shrunk_to_their_median():
    x = centred(np.random.default_rng(0).normal(size=(6, 400)))
    raw = x.var(axis=0, ddof=1)
    shrunk = shrink_variances(x)
    assert shrunk.std() < 0.3 * raw.std()
    assert np.median(shrunk) == pytest.approx(np.median(raw))


def test_correlations_do_not_depend_on_column_scale():
    x = unequal(10, 8)
    scaled = x * np.geomspace(0.01, 100, 8)
    np.testing.assert_allclose(correlation_shrinkage(scaled), correlation_shrinkage(x), rtol=1e-8)
    np.testing.assert_allclose(shrink_variances(7 * x), 49 * shrink_variances(x), rtol=1e-10)


def test_constant_columns_do_not_affect_the_correlations():
    x = unequal(10, 8)
    with np.errstate(all="raise"):
        with_constant = correlation_shrinkage(np.insert(x, 3, 0.0, axis=1))
    np.testing.assert_allclose(with_constant, correlation_shrinkage(x), rtol=1e-10)


def test_all_zero_columns_are_shrunk_fully():
    with np.errstate(all="raise"):
        assert not shrink_variances(np.zeros((4, 5))).any()
        assert correlation_shrinkage(np.zeros((4, 5))) == (1.0, 0.0)


def test_two_opposite_columns_keep_their_correlation():
    column = centred(np.random.default_rng(0).normal(size=50))
    intensity, squared = correlation_shrinkage(np.column_stack([column, -2 * column]))
    assert intensity < 0.1
    assert squared == pytest.approx(2)


@pytest.mark.parametrize("n_samples", [5, 30])
def test_covariance_is_shrunk_entry_by_entry(n_samples):
    x = unequal(n_samples, 9)
    intensity, _ = correlation_shrinkage(x)
    variance, correlation = shrink_variances(x), np.corrcoef(x.T)
    for (i, j), found in np.ndenumerate(shrink_covariance(x)):
        kept = 1 if i == j else 1 - intensity
        assert found == pytest.approx(kept * correlation[i, j] * np.sqrt(variance[i] * variance[j]))


@pytest.mark.parametrize("y", [1e-9, 1e-4, 0.02, 0.5, 1.0, 3.7, 50.0, 1e4, 1e9])
def test_trigamma_inverse_is_the_inverse(y):
    assert trigamma_inverse(float(polygamma(1, y))) == pytest.approx(y, rel=1e-6)


def slow_prior(variance, df):
    """Smyth 2004, section 6.2, one gene after the other, the equation of d0 solved by bisection."""
    smallest = 1e-5 * sorted(variance)[len(variance) // 2]
    variance = [max(s, smallest) for s in variance]
    e = [math.log(s) - digamma(df / 2) + math.log(df / 2) for s in variance]
    mean, n = sum(e) / len(e), len(e)
    target = sum((x - mean) ** 2 * n / (n - 1) - polygamma(1, df / 2) for x in e) / n
    d0 = 2 * brentq(lambda half: polygamma(1, half) - target, 1e-6, 1e9, xtol=1e-12, rtol=1e-14)
    return d0, math.exp(mean + digamma(d0 / 2) - math.log(d0 / 2))


@pytest.mark.parametrize("df", [1, 4, 30])
def test_moderated_variances_equal_a_plain_implementation(df):
    rng = np.random.default_rng(df)
    variance = 0.3 * 5 / rng.chisquare(5, 2001) * rng.chisquare(df, 2001) / df
    d0, s0 = slow_prior(variance.tolist(), df)
    assert fit_variance_prior(variance, df) == pytest.approx((d0, s0), rel=1e-6)
    posterior, df_total = moderate_variances(variance, df)
    np.testing.assert_allclose(posterior, [(d0 * s0 + df * s) / (d0 + df) for s in variance], rtol=1e-6)
    assert df_total == pytest.approx(d0 + df, rel=1e-6)


def test_planted_prior_is_recovered():
    rng = np.random.default_rng(0)
    variance = 0.3 * 6 / rng.chisquare(6, 40_000) * rng.chisquare(8, 40_000) / 8
    d0, s0 = fit_variance_prior(variance, 8)
    assert d0 == pytest.approx(6, rel=0.05)
    assert s0 == pytest.approx(0.3, rel=0.02)


def test_homogeneous_variances_are_fully_pooled():
    equal = np.full(50, 0.7)
    posterior, df_total = moderate_variances(equal, 5)
    assert df_total == np.inf
    np.testing.assert_allclose(posterior, equal)


def test_precise_variances_are_not_shrunk():
    variance = np.random.default_rng(0).gamma(2, 1, 300)
    posterior, df_total = moderate_variances(variance, 1e7)
    assert df_total == pytest.approx(1e7, rel=1e-5)
    np.testing.assert_allclose(posterior, variance, rtol=1e-4)


@pytest.mark.parametrize("variance", [np.array([0.3]), np.array([]), np.zeros(5), np.array([0, 0, 0, 1.0])])
def test_without_variances_there_is_no_prior(variance):
    posterior, df_total = moderate_variances(variance, 3)
    assert df_total == 3
    np.testing.assert_array_equal(posterior, variance)


def test_one_gene_without_variance_is_not_enough():
    variance = 0.3 * np.random.default_rng(0).chisquare(5, 500) / 5
    with_zero = fit_variance_prior(np.r_[variance, 0.0], 5)
    assert np.isfinite(with_zero).all()
    assert with_zero[1] == pytest.approx(variance.mean(), rel=0.1)
    assert (moderate_variances(np.r_[variance, 0.0], 5)[0] > 0).all()
