"""Harmonised profiles against gradient descent, and gene weights against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import linregress

from scdeconv._stats.solvers import harmonised_profiles
from scdeconv._stats.solvers.harmonised_profiles import (
    CorrelationLoss,
    choose_penalty,
    correlation_weights,
    correlations,
    fit_profiles,
    recovery_factors,
    solve_with_weights,
)


@pytest.fixture
def pairs():
    """Fractions of nine samples, bulk of profiles with a shift per gene, and the profiles without it (3 × 40)."""
    rng = np.random.default_rng(0)
    profiles = rng.gamma(1, 1, (3, 40))
    fractions = rng.dirichlet(np.ones(3), 9)
    bulk = fractions @ (profiles * np.exp(rng.normal(0, 0.7, 40))) + rng.normal(0, 0.05, (9, 40))
    return fractions, bulk, profiles


def loss_by_loops(values, fractions, bulk, profiles, penalty):
    fitted = values.reshape(profiles.shape)
    total = sum((fractions[n] @ fitted[:, g] - bulk[n, g]) ** 2 for n in range(len(bulk)) for g in range(bulk.shape[1]))
    difference = (fitted - profiles).ravel()
    return total + penalty * sum(np.log1p(np.exp(u)) + np.log1p(np.exp(-u)) for u in difference)


@pytest.mark.parametrize("penalty", [0.1, 1.0, 30.0])
def test_profiles_minimise_the_loss(pairs, penalty):
    fractions, bulk, profiles = (pairs[0], pairs[1][:, :4], pairs[2][:, :4])
    found = fit_profiles(fractions, bulk, profiles, penalty)
    arguments = fractions, bulk, profiles, penalty
    best = minimize(loss_by_loops, profiles.ravel(), arguments, method="BFGS", options={"gtol": 1e-7})
    assert loss_by_loops(found.ravel(), *arguments) <= best.fun + 1e-8
    np.testing.assert_allclose(found.ravel(), best.x, atol=2e-4)


def test_profiles_do_not_depend_on_the_start(pairs):
    first = fit_profiles(*pairs, 2.0)
    np.testing.assert_allclose(fit_profiles(*pairs, 2.0, start=pairs[2] + 3), first, atol=1e-4)


def test_penalty_interpolates_between_regression_and_reference(pairs):
    fractions, bulk, profiles = pairs
    np.testing.assert_allclose(fit_profiles(*pairs, 0), np.linalg.lstsq(fractions, bulk, rcond=None)[0])
    np.testing.assert_allclose(fit_profiles(*pairs, 1e6), profiles, atol=1e-3)
    # two samples determine no three profiles: the change has the smallest norm
    few = fit_profiles(fractions[:2], bulk[:2], profiles, 0)
    np.testing.assert_allclose(fractions[:2] @ few, bulk[:2])
    unseen = np.cross(*fractions[:2])
    np.testing.assert_allclose(unseen @ (few - profiles), 0, atol=1e-9)


def test_solutions_equal_weighted_least_squares(pairs):
    _, bulk, profiles = pairs
    weights = np.random.default_rng(1).uniform(0.1, 2, 40)
    root = np.sqrt(weights)
    expected = np.linalg.lstsq((profiles * root).T, (bulk * root).T, rcond=None)[0].T
    np.testing.assert_allclose(solve_with_weights(profiles, bulk, weights), expected, atol=1e-8)


def test_loss_and_gradient_equal_finite_differences(pairs):
    fractions, bulk, profiles = pairs
    weights, loss = np.random.default_rng(1).uniform(0.5, 2, 40), CorrelationLoss(profiles, bulk, fractions)

    def by_hand(values):
        solved = solve_with_weights(profiles, bulk, values)
        return -np.mean([np.corrcoef(solved[:, k], fractions[:, k])[0, 1] for k in range(3)])

    steps = 1e-5 * np.eye(40)
    np.testing.assert_allclose([loss(weights)[0], loss(3 * weights)[0]], by_hand(weights), rtol=1e-9)
    expected = [(by_hand(weights + step) - by_hand(weights - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(loss(weights)[1], expected, atol=1e-8)


def test_constant_fractions_have_no_correlation(pairs):
    fractions, bulk, profiles = pairs
    constant = fractions.copy()
    constant[:, 1] = 0.2
    assert correlations(constant, fractions)[1] == 0
    assert np.isfinite(CorrelationLoss(profiles, bulk, constant)(np.ones(40))[1]).all()
    assert np.isfinite(correlation_weights(profiles, bulk, constant)).all()


def test_weights_raise_the_correlation(pairs):
    fractions, bulk, profiles = pairs
    weights, loss = correlation_weights(profiles, bulk, fractions), CorrelationLoss(profiles, bulk, fractions)
    assert loss(weights)[0] < loss(np.ones(40))[0] - 0.01
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.mean(), 1)


def test_weights_do_not_amplify_rounding_errors(pairs):
    fractions, bulk, profiles = pairs
    noise = np.random.default_rng(0).normal(size=profiles.shape)
    weights = [correlation_weights(changed, bulk, fractions) for changed in (profiles, profiles * (1 + 1e-12 * noise))]
    np.testing.assert_allclose(*weights, rtol=1e-7)


def test_types_without_expression_get_nothing(pairs):
    fractions, bulk, profiles = pairs
    empty = profiles.copy()
    empty[2] = 0
    assert not solve_with_weights(empty, bulk, np.ones(40))[:, 2].any()
    assert np.isfinite(correlation_weights(empty, bulk, fractions)).all()


def test_recovery_is_the_slope_of_a_regression():
    rng = np.random.default_rng(0)
    measured = rng.dirichlet(np.ones(4), 12)
    solved = measured * [0.5, 2, -1, 1] + rng.normal(0, 0.01, (12, 4))
    measured[:, 3] = 0.25
    expected = [linregress(measured[:, k], solved[:, k]).slope for k in range(2)]
    np.testing.assert_allclose(recovery_factors(measured, solved), [*expected, 1, 1])


def test_penalty_maximises_the_held_out_correlation(pairs, monkeypatch):
    fractions, bulk, profiles = pairs
    monkeypatch.setattr(harmonised_profiles, "PENALTIES", (0.1, 1.0, 10.0))
    folds = [np.arange(9) % 3 == fold for fold in range(3)]
    scores = []
    for penalty in (0.1, 1.0, 10.0):
        solved = np.zeros((9, 3))
        for rows in folds:
            fitted = np.maximum(fit_profiles(fractions[~rows], bulk[~rows], profiles, penalty), 0)
            solved[rows] = np.maximum(np.linalg.lstsq(fitted.T, bulk[rows].T, rcond=None)[0].T, 0)
        scores.append(np.mean([np.corrcoef(solved[:, k], fractions[:, k])[0, 1] for k in range(3)]))
    assert choose_penalty(fractions, bulk, profiles, folds) == (0.1, 1.0, 10.0)[int(np.argmax(scores))]
