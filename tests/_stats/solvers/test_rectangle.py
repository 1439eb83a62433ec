"""Clusters of similar cell types and unknown content."""

from __future__ import annotations

import numpy as np
import pytest
from dwls_data import make_profiles, noisy_mixtures
from scipy.optimize import minimize

from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import normal_equations
from scdeconv._stats.solvers.rectangle import (
    MISSING,
    calibrate_residual,
    clear_markers,
    cluster_means,
    cluster_profiles,
    merge_unmarked,
    residual_share,
    share_constraints,
    shrink,
    solve_in_cone,
)


def test_only_similar_types_are_clustered():
    members = cluster_profiles(make_profiles(similar=0.1))
    assert members.sum(axis=0).tolist() == [1] * 6
    assert len(members) in (3, 4, 5)
    assert (members[:, 0] == members[:, 1]).all()
    assert members[:, 2:].T @ members[:, 0] == pytest.approx(0)


def test_identical_profiles_are_not_clustered():
    assert cluster_profiles(np.full((5, 30), 1 / 30)).tolist() == np.eye(5).tolist()


def test_cluster_mean_weights_its_types_equally():
    members = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(cluster_means(np.array([[1.0], [3.0], [7.0]]), members), [[2], [7]])


@pytest.mark.parametrize("identical", [False, True])
def test_solution_in_a_cone_equals_scipy(identical):
    rng = np.random.default_rng(0)
    signature, members = rng.gamma(1, 1, (6, 50)), np.kron(np.eye(3), np.ones(2))
    signature[1] = signature[0] * (1 if identical else rng.lognormal(0, 0.02, 50))
    bulk = rng.dirichlet(np.ones(6), 12) @ signature * rng.lognormal(0, 0.5, (12, 50))
    cone = share_constraints(rng.dirichlet(np.ones(3), 12), members, 0.05)
    gram, moment = normal_equations(signature, bulk, rng.gamma(1, 1, bulk.shape))
    found = solve_in_cone(gram, moment, cone)
    assert np.einsum("nck,nk->nc", cone, found).min() > -1e-8
    for square, linear, rows, solution in zip(gram, moment, cone, found, strict=True):

        def loss(x, square=square, linear=linear):
            return (x @ square @ x / 2 - linear @ x) / np.trace(square)

        constraint = {"type": "ineq", "fun": lambda x, rows=rows: rows @ x}
        oracle = minimize(loss, np.full(6, 0.1), constraints=constraint, options={"ftol": 1e-14, "maxiter": 500})
        assert loss(solution) <= loss(oracle.x) + 1e-9
        if not identical:
            np.testing.assert_allclose(solution, oracle.x, atol=1e-4)


def test_inactive_constraints_do_not_change_the_solution():
    signature, bulk, weights = noisy_mixtures(n_samples=30)
    bulk = weights @ signature
    cone = share_constraints(weights + 0.04 * np.array([1, -1, 1, -1]), np.eye(4), 0.05)
    found = solve_in_cone(*normal_equations(signature, bulk, np.ones_like(bulk)), cone)
    np.testing.assert_allclose(found, weights, atol=1e-8)


def test_calibration_rises_from_zero():
    curve = calibrate_residual(make_profiles(similar=2.0))
    assert curve.shape == MISSING.shape
    assert abs(curve[0]) < 1e-9
    assert (np.diff(curve) > 0.02).all()


def test_residual_share_is_zero_for_exact_fits():
    profiles, weights = make_profiles(similar=0.1), np.random.default_rng(0).dirichlet(np.ones(6), 5)
    members, bulk = merge_unmarked(profiles), weights @ profiles
    np.testing.assert_allclose(residual_share(profiles, bulk, weights, members)[0], 0, atol=1e-12)
    scales = np.linspace(0.8, 1.2, 5)[:, None]
    np.testing.assert_allclose(residual_share(profiles, bulk, weights * scales, members)[0], 0, atol=0.02)


def test_shares_within_one_standard_error_become_zero():
    found = shrink(np.array([-0.3, 0.0, 0.1, 0.2, 0.2]), np.array([0.1, 0.0, 0.1, 0.1, 0.0]))
    np.testing.assert_allclose(found, [0, 0, 0, 0.15, 0.2])


def test_standard_error_equals_that_of_repeated_platforms():
    profiles, rng = make_profiles(similar=2.0), np.random.default_rng(0)
    weights = rng.dirichlet(np.full(6, 5.0))
    bulk = weights @ profiles * np.exp(0.5 * rng.normal(size=(200, 800)))
    found, error = residual_share(profiles, bulk, np.tile(weights, (200, 1)), np.eye(6))
    assert abs(found.mean()) < 0.05
    np.testing.assert_allclose(error.mean(), found.std(), rtol=0.25)


def test_clear_markers_are_fourfold_and_expressed():
    profiles = to_shares(np.vstack([np.ones(100), np.ones(100), np.ones(100)]))
    profiles[0, :3] *= [5, 3, 1]
    profiles[1, 3] *= 5
    profiles[:, 4] = 1e-9
    profiles[0, 4] = 1e-6
    markers, others = clear_markers(profiles)
    assert [np.flatnonzero(row).tolist() for row in markers] == [[0], [3], []]
    assert np.flatnonzero(~others).tolist() == [0, 3, 4]


def test_only_types_without_clear_markers_are_merged():
    members = merge_unmarked(make_profiles(similar=0.1))
    assert sorted(map(tuple, members.tolist())) == sorted([(1, 1, 0, 0, 0, 0), *map(tuple, np.eye(6)[2:].tolist())])
    assert merge_unmarked(make_profiles(similar=2.0)).tolist() == np.eye(6).tolist()
    assert len(merge_unmarked(np.full((5, 30), 1 / 30))) == 5
