from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from scdeconv._stats.ridge import PENALTIES, fit_ridge, left_out_predictions


@pytest.fixture
def problem():
    """Features far from zero, more of them than rows; targets with a level; donors with 1 to 4 rows."""
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c", "d", "e"], [4, 1, 3, 2, 2])
    x = 3 + rng.normal(size=(len(groups), 40)) * np.linspace(2, 0.1, 40)
    y = x[:, :5] @ rng.normal(size=(5, 2)) + 5 + 3 * rng.normal(size=(len(groups), 2))
    return x, y, groups


def left_out(x, y, groups, penalty):
    """Predictions of every group without it, from the eigendecomposition of the kernel."""
    centred = x - x.mean(axis=0)
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    return left_out_predictions(*np.linalg.eigh(centred @ centred.T), y, rows, penalty)


def unit_of(x):
    """The mean eigenvalue of the kernel, in which penalties are given."""
    return ((x - x.mean(axis=0)) ** 2).sum() / len(x)


def refit_without_each(x, y, groups, alpha):
    predicted = np.empty_like(y)
    for group in np.unique(groups):
        out = groups == group
        predicted[out] = Ridge(alpha=alpha).fit(x[~out], y[~out]).predict(x[out])
    return predicted


@pytest.mark.parametrize("penalty", [1e-2, 1.0, 30.0, 1e4])
def test_held_out_predictions_equal_explicit_refits(problem, penalty):
    x, y, groups = problem
    predicted = left_out(x, y, groups, penalty)
    np.testing.assert_allclose(predicted, refit_without_each(x, y, groups, penalty), rtol=1e-6)


def test_single_row_folds_equal_leave_one_out(problem):
    x, y, _ = problem
    rows = np.arange(len(y))
    np.testing.assert_allclose(left_out(x, y, rows, 2.0), refit_without_each(x, y, rows, 2.0), rtol=1e-8)


def test_held_out_rows_do_not_affect_their_prediction(problem):
    x, y, groups = problem
    changed = np.where((groups == "a")[:, None], 1e6, y)
    before, after = (left_out(x, target, groups, 1.0) for target in (y, changed))
    np.testing.assert_allclose(after[groups == "a"], before[groups == "a"], rtol=1e-6)


def squared_error(truth):
    return lambda predicted: float(np.mean((predicted - truth) ** 2))


def test_fit_equals_scikit_learn_at_the_chosen_penalty(problem):
    x, y, groups = problem
    fit = fit_ridge(x, y, groups, squared_error(y))
    assert fit.penalty in PENALTIES
    oracle = Ridge(alpha=fit.penalty * unit_of(x)).fit(x, y)
    np.testing.assert_allclose(fit.coefficients, oracle.coef_.T, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(fit.intercept, oracle.intercept_, rtol=1e-6)


def test_chosen_penalty_minimises_the_refit_error(problem):
    x, y, groups = problem
    error = squared_error(y)
    errors = [error(refit_without_each(x, y, groups, penalty * unit_of(x))) for penalty in PENALTIES]
    chosen = fit_ridge(x, y, groups, error).penalty
    assert chosen == PENALTIES[int(np.argmin(errors))]
    assert PENALTIES[0] < chosen < PENALTIES[-1]


def test_penalty_minimises_the_given_error(problem):
    x, y, groups = problem
    for best in (0, 7, len(PENALTIES) - 1):
        errors = iter(np.arange(len(PENALTIES)) != best)
        assert fit_ridge(x, y, groups, lambda _, errors=errors: next(errors)).penalty == PENALTIES[best]


def test_error_receives_predictions_on_the_target_scale(problem):
    x, y, groups = problem
    seen = []
    fit_ridge(x, y, groups, lambda predicted: (seen.append(predicted), 0.0)[1])
    assert len(seen) == len(PENALTIES)
    np.testing.assert_allclose(seen[5], refit_without_each(x, y, groups, PENALTIES[5] * unit_of(x)), rtol=1e-6)


def test_noise_gets_a_larger_penalty_than_signal():
    rng = np.random.default_rng(1)
    x, groups = rng.normal(size=(60, 5)), np.arange(60)
    signal, noise = x @ rng.normal(size=(5, 2)), rng.normal(size=(60, 2))
    assert fit_ridge(x, signal, groups, squared_error(signal)).penalty == PENALTIES[0]
    assert fit_ridge(x, noise, groups, squared_error(noise)).penalty > 0.1


def test_single_donor_gets_the_largest_penalty(problem):
    x, y, _ = problem
    fit = fit_ridge(x, y, np.zeros(len(y)), squared_error(y))
    assert fit.penalty == PENALTIES[-1]


def test_constant_features_give_the_mean():
    y = np.array([[1.0], [2.0], [6.0]])
    fit = fit_ridge(np.ones((3, 4)), y, np.arange(3), squared_error(y))
    assert not fit.coefficients.any()
    np.testing.assert_allclose(fit.intercept, [3.0])


def test_penalties_span_five_decades():
    assert PENALTIES[0] == pytest.approx(1e-4)
    assert PENALTIES[-1] == pytest.approx(10)
