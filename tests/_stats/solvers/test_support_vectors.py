"""Support-vector regression of bulk on profiles against a general optimiser and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from scdeconv._stats.solvers import support_vectors


def primal(profiles, sample, nu):
    """Weights of the nu-SVR whose objective is in the docstring, by a general optimiser."""
    n_types, n_genes = profiles.shape
    # weights, intercept, half-width of the tube, slack above and below
    plane = np.vstack([profiles, np.ones(n_genes)]).T
    width, slack = np.ones((n_genes, 1)), np.eye(n_genes)
    room = np.block([[plane, width, slack, 0 * slack], [-plane, width, 0 * slack, slack]])
    cost = np.concatenate([np.zeros(n_types + 1), [nu * n_genes], np.ones(2 * n_genes)])
    quadratic = np.concatenate([np.ones(n_types), np.zeros(len(cost) - n_types)])
    solution = minimize(
        lambda x: cost @ x + quadratic @ x**2 / 2,
        np.concatenate([np.zeros(n_types + 2), np.tile(np.abs(sample), 2)]),
        jac=lambda x: cost + quadratic * x,
        bounds=[(None, None)] * (n_types + 1) + [(0, None)] * (1 + 2 * n_genes),
        constraints=LinearConstraint(room, np.concatenate([sample, -sample])),
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-10},
    )
    assert solution.success, solution.message
    return solution.x[:n_types]


@pytest.mark.parametrize("seed", range(6))
def test_solution_solves_the_primal_problem(seed):
    rng = np.random.default_rng(seed)
    profiles = support_vectors.standardise(rng.gamma(1, 1, (3, 14)))
    sample = support_vectors.standardise(np.array([0.1, 0.6, 0.3]) @ profiles + rng.normal(0, 0.4, 14))
    best, lowest = None, np.inf
    for nu in (0.25, 0.5, 0.75):
        weights = np.maximum(primal(profiles, sample, nu), 0)
        error = np.sqrt(np.mean((weights / weights.sum() @ profiles - sample) ** 2))
        if error < lowest:
            best, lowest = weights, error
    np.testing.assert_allclose(support_vectors.solve_nu_svr(profiles, sample), best, atol=5e-3)


def test_standardisation_equals_numpy():
    rng = np.random.default_rng(0)
    signature, bulk = rng.gamma(1, 1, (3, 40)), rng.gamma(1, 1, (4, 40))
    np.testing.assert_allclose(
        support_vectors.standardise(signature), (signature - signature.mean()) / signature.std(ddof=1)
    )
    for row, sample in zip(support_vectors.standardise(bulk, axis=1), bulk, strict=True):
        np.testing.assert_allclose(row, (sample - sample.mean()) / sample.std(ddof=1))


def test_constant_sample_has_no_correlation():
    profile = np.arange(1.0, 21)
    signature = np.stack([profile, profile**2])
    assert support_vectors.goodness_of_fit(signature, np.full((1, 20), 3.0), np.array([[0.5, 0.5]]))[0] == 0


def test_goodness_of_fit_equals_numpy():
    rng = np.random.default_rng(0)
    signature, bulk, fractions = rng.normal(size=(3, 30)), rng.normal(size=(5, 30)), rng.dirichlet(np.ones(3), 5)
    correlation, rmse = support_vectors.goodness_of_fit(signature, bulk, fractions)
    for i in range(5):
        fitted = fractions[i] @ signature
        assert correlation[i] == pytest.approx(np.corrcoef(fitted, bulk[i])[0, 1])
        assert rmse[i] == pytest.approx(np.sqrt(np.mean((fitted - bulk[i]) ** 2)))


def test_p_values_equal_a_plain_loop():
    rng = np.random.default_rng(0)
    correlation, null = rng.uniform(-0.5, 1, 20), rng.normal(0, 0.2, 57)
    for value, found in zip(correlation, support_vectors.p_values(correlation, null), strict=True):
        place = min(range(57), key=lambda i: abs(sorted(null)[i] - value))
        assert found == pytest.approx(1 - (place + 1) / 57)


def test_null_mixtures_are_pooled_values_drawn_without_replacement():
    bulk = np.arange(12.0).reshape(3, 4)
    drawn = support_vectors.draw_null_mixtures(bulk, 200, np.random.default_rng(0))
    assert drawn.shape == (200, 4)
    assert all(len(set(row)) == 4 for row in drawn)
    assert set(drawn.ravel()) == set(bulk.ravel())
