"""Cluster-robust tests of linear models, compared with classical tests, statsmodels and plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from scdeconv._stats.group_tests.cluster_robust import LinearModel
from scdeconv._stats.group_tests.variance_components import estimate_components, limit_weights, stack_clusters


def two_groups(first, second):
    member = np.repeat([0.0, 1.0], [first, second])
    return np.column_stack([np.ones(first + second), member])


def independent(matrix, tested=(1,)):
    return LinearModel(matrix, np.array(tested), np.arange(len(matrix)), has_intercepts=False)


def square_root(matrix, power):
    values, vectors = np.linalg.eigh(matrix)
    values = np.where(values > 1e-10, np.maximum(values, 1e-10) ** power, 0)
    return vectors @ np.diag(values) @ vectors.T


def slow_test(model, response, covariance):
    """CR2 with Satterthwaite degrees of freedom, written out with one matrix of all samples."""
    root = np.linalg.inv(np.linalg.cholesky(covariance))
    x, y = root @ model.matrix, root @ response
    bread = np.linalg.inv(x.T @ x)
    annihilator = np.eye(len(y)) - x @ bread @ x.T
    residuals = annihilator @ y
    contrast = np.zeros(x.shape[1])
    contrast[model.tested[0]] = 1
    variance, directions = 0.0, []
    for code in np.unique(model.clusters):
        rows = np.flatnonzero(model.clusters == code)
        weights = contrast @ bread @ x[rows].T @ square_root(annihilator[np.ix_(rows, rows)], -0.5)
        variance += (weights @ residuals[rows]) ** 2
        directions.append(annihilator[:, rows] @ weights)
    crossed = np.array(directions) @ np.array(directions).T
    return bread @ x.T @ y, np.sqrt(variance), np.trace(crossed) ** 2 / (crossed**2).sum()


def test_equal_groups_give_student_t_test():
    y = np.random.default_rng(0).normal(size=12)
    found = independent(two_groups(6, 6)).test(y, np.zeros(12))
    expected = stats.ttest_ind(y[6:], y[:6])
    assert found.p_value[0] == pytest.approx(expected.pvalue)
    assert found.df[0] == pytest.approx(10)
    assert np.ravel(found.interval()) == pytest.approx(expected.confidence_interval(0.95))


def test_unequal_groups_have_the_error_of_welch():
    y = np.random.default_rng(0).normal(size=12)
    found = independent(two_groups(4, 8)).test(y, np.zeros(12))
    assert found.effect / found.se == pytest.approx(stats.ttest_ind(y[4:], y[:4], equal_var=False).statistic)


def test_donors_as_blocks_give_paired_t_test():
    y, donors = np.random.default_rng(0).normal(size=12), np.tile(np.arange(6), 2)
    matrix = np.column_stack([np.eye(6)[donors], np.repeat([0, 1], 6)])
    found = LinearModel(matrix, np.array([6]), donors, has_intercepts=False).test(y, np.zeros(12))
    assert found.p_value[0] == pytest.approx(stats.ttest_rel(y[6:], y[:6]).pvalue)


@pytest.mark.parametrize("has_errors", [False, True])
@pytest.mark.parametrize("has_intercepts", [False, True])
def test_fast_formulas_equal_plain_matrices(has_errors, has_intercepts):
    rng = np.random.default_rng(1)
    donors = np.repeat(np.arange(9), [2, 3, 1, 4, 3, 2, 3, 2, 2])
    matrix = np.column_stack([np.ones(22), donors % 2, rng.normal(size=22)])
    y = rng.normal(size=9)[donors] + rng.normal(size=22)
    errors = rng.gamma(1, 1, 22) if has_errors else np.zeros(22)
    model = LinearModel(matrix, np.array([1]), donors, has_intercepts)
    found = model.test(y, errors)
    if not (has_errors or has_intercepts):
        covariance = np.eye(22)
    else:
        within, between = estimate_components(y, matrix, stack_clusters(donors), errors, has_intercepts=has_intercepts)
        covariance = np.diag(limit_weights(within + errors)) + between * (donors[:, None] == donors)
    effect, se, df = slow_test(model, y, covariance)
    assert found.effect[0] == pytest.approx(effect[1])
    assert found.se[0] == pytest.approx(se)
    assert found.df[0] == pytest.approx(df)


def test_effect_with_intercepts_equals_statsmodels():
    rng = np.random.default_rng(0)
    donors = np.repeat(np.arange(10), [2, 3, 1, 4, 3, 2, 3, 2, 2, 3])
    matrix = np.column_stack([np.ones(25), donors % 2])
    y = 2 * rng.normal(size=10)[donors] + rng.normal(size=25)
    found = LinearModel(matrix, np.array([1]), donors, has_intercepts=True).test(y, np.zeros(25))
    expected = sm.MixedLM(y, matrix, donors).fit(reml=True)
    assert found.effect[0] == pytest.approx(expected.fe_params[1], rel=1e-4)
    assert found.variance == pytest.approx(expected.scale + expected.cov_re[0, 0], rel=1e-3)


def test_samples_with_large_errors_have_little_weight():
    rng = np.random.default_rng(0)
    y = rng.normal(size=40) + np.repeat([0.0, 1.0], 20)
    errors = np.tile([0.0, 1e6], 20)
    found = independent(two_groups(20, 20)).test(y, errors)
    exact = independent(two_groups(10, 10)).test(y[::2], np.zeros(20))
    assert found.effect == pytest.approx(exact.effect, abs=1e-3)
    assert found.se == pytest.approx(exact.se, rel=0.01)


def rejections(draw, model, n=400):
    rng = np.random.default_rng(0)
    return np.mean([model.test(*draw(rng)).joint_p_value < 0.05 for _ in range(n)])


def test_three_groups_keep_the_level():
    matrix = np.column_stack([np.ones(18), *(np.repeat(np.eye(3), 6, axis=0)[:, 1:].T)])
    assert 0.02 < rejections(lambda rng: (rng.normal(size=18), np.zeros(18)), independent(matrix, (1, 2))) < 0.08


def test_unequal_variances_keep_the_level():
    spread = np.repeat([3.0, 1.0], [6, 18])
    model = independent(two_groups(6, 18))
    assert rejections(lambda rng: (spread * rng.normal(size=24), np.zeros(24)), model) < 0.08
    # the test with pooled variances does not
    rng = np.random.default_rng(0)
    pooled = [sm.OLS(spread * rng.normal(size=24), model.matrix).fit().pvalues[1] < 0.05 for _ in range(400)]
    assert np.mean(pooled) > 0.15


def test_three_groups_have_power():
    matrix = np.column_stack([np.ones(18), *(np.repeat(np.eye(3), 6, axis=0)[:, 1:].T)])
    shift = np.repeat([0.0, 0.0, 2.5], 6)
    assert rejections(lambda rng: (shift + rng.normal(size=18), np.zeros(18)), independent(matrix, (1, 2)), 100) > 0.8


def test_weights_are_at_most_twice_the_mean():
    weights = 1 / limit_weights(np.array([1e-3, 1.0, 1.0, 2.0, 4.0]))
    assert weights[0] == pytest.approx(2 * weights.mean())
    assert weights[1:].tolist() == [1, 1, 0.5, 0.25]
