from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp, tl
from scdeconv._stats.expression import to_shares
from scdeconv._stats.least_squares import normal_equations, solve_huber, solve_least_squares
from scdeconv.models import RobustRegression

TYPES = ["B cell", "NK cell", "T cell"]
SIZES = np.array([1.0, 4.0, 10.0])


@pytest.fixture
def mixed():
    """Signature, bulk with noise and a tenth of outlier genes, and weights of 12 samples."""
    rng = np.random.default_rng(0)
    signature, weights = rng.gamma(0.5, 1, (4, 120)), rng.dirichlet(np.ones(4), 12)
    bulk = weights @ signature * rng.lognormal(0, 0.2, (12, 120))
    bulk[:, :12] *= 20
    return signature, bulk, weights


@pytest.fixture
def profiles():
    shares = np.random.default_rng(0).dirichlet(np.full(60, 0.5), size=3)
    adata = AnnData(SIZES[:, None] * 1000 * shares, obs=pd.DataFrame({"cell_type": TYPES}, index=TYPES))
    adata.var_names = [f"G{i}" for i in range(60)]
    return adata


@pytest.fixture
def shares():
    values = np.random.default_rng(1).dirichlet(np.ones(3), size=5)
    values[0] = [0, 0.25, 0.75]
    return pd.DataFrame(values, [f"s{i}" for i in range(5)], TYPES)


def mixtures(profiles, shares):
    return AnnData(300 * shares.to_numpy() @ profiles.X, obs=shares[[]], var=profiles.var)


def train(profiles, bulk, **arguments):
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        mdata = pp.pair(bulk=bulk, profiles=profiles)
    return tl.train(mdata, "robust_regression", **arguments)


def plain_rlm(signature, sample, max_iterations=20, tolerance=1e-4):
    """The loop of MASS::rlm for one sample."""
    solution = np.linalg.lstsq(signature.T, sample, rcond=None)[0]
    residual = sample - solution @ signature
    for _ in range(max_iterations):
        before, scale = residual, np.median(np.abs(residual)) / 0.6745
        if scale == 0:
            break
        root = np.sqrt(np.minimum(1, 1.345 / np.abs(residual / scale)))
        solution = np.linalg.lstsq((signature * root).T, sample * root, rcond=None)[0]
        residual = sample - solution @ signature
        if np.sqrt(((before - residual) ** 2).sum() / max(1e-20, (before**2).sum())) <= tolerance:
            break
    return solution


@pytest.mark.parametrize("max_iterations", [1, 3, 20])
def test_coefficients_are_those_of_a_plain_loop_over_samples(mixed, max_iterations):
    signature, bulk, _ = mixed
    found = solve_huber(signature, bulk, max_iterations=max_iterations)
    np.testing.assert_allclose(found, [plain_rlm(signature, sample, max_iterations) for sample in bulk], atol=1e-9)


def test_converged_coefficients_are_those_of_statsmodels(mixed):
    regression = pytest.importorskip("statsmodels.api")
    signature, bulk, _ = mixed
    norm = regression.robust.norms.HuberT(1.345)
    oracle = [regression.RLM(sample, signature.T, M=norm).fit(maxiter=1000, tol=1e-12).params for sample in bulk]
    found = solve_huber(signature, bulk, max_iterations=1000, tolerance=1e-12)
    np.testing.assert_allclose(found, oracle, atol=1e-5)


def test_outlier_genes_do_not_move_the_solution_where_they_move_least_squares(mixed):
    signature, bulk, truth = mixed
    plain = solve_least_squares(*normal_equations(signature, bulk, np.ones_like(bulk)))
    error, moved = (
        np.abs(to_shares(np.maximum(found, 0)) - truth).mean() for found in (solve_huber(signature, bulk), plain)
    )
    assert error < 0.05
    assert error < moved / 3


def test_outlier_genes_of_any_size_move_the_solution_by_no_more_than_large_ones(mixed):
    signature, bulk, _ = mixed
    huge = bulk.copy()
    huge[:, :12] *= 1e4
    large, far = (solve_huber(signature, values, max_iterations=1000, tolerance=1e-10) for values in (bulk, huge))
    np.testing.assert_allclose(far, large, atol=0.02)


def test_normal_equations_are_those_of_each_sample(mixed):
    signature, bulk, _ = mixed
    weights = np.random.default_rng(3).random(bulk.shape)
    gram, moment = normal_equations(signature, bulk, weights)
    np.testing.assert_allclose(gram, [(signature * row) @ signature.T for row in weights])
    np.testing.assert_allclose(moment, [(signature * row) @ b for row, b in zip(weights, bulk, strict=True)])


def test_noise_free_mixtures_are_recovered_as_shares_of_cells(profiles, shares):
    bulk = mixtures(profiles, shares)
    pd.testing.assert_frame_equal(train(profiles, bulk).predict(bulk), shares, atol=1e-6)


def test_noise_free_mixtures_are_recovered_in_spite_of_outlier_genes(profiles, shares):
    """More than half of the genes fit, so the scale of the residuals goes to zero."""
    bulk = mixtures(profiles, shares)
    model = train(profiles, bulk, max_iterations=1000)
    bulk.X[:, :5] *= 10
    assert np.abs(model.predict(bulk) - shares).to_numpy().max() < 1e-3


def test_depth_and_the_other_samples_change_nothing(profiles, shares):
    bulk = mixtures(profiles, shares)
    bulk.X = bulk.X * np.random.default_rng(0).lognormal(0, 0.3, bulk.shape)
    model = train(profiles, bulk)
    expected = model.predict(bulk)
    pd.testing.assert_frame_equal(model.predict(bulk[[2]].copy()), expected.iloc[[2]], atol=1e-9)
    bulk.X = bulk.X * 1e5
    pd.testing.assert_frame_equal(model.predict(bulk), expected, atol=1e-9)


def test_negative_coefficients_become_zero(mixed):
    signature, rng = mixed[0], np.random.default_rng(1)
    bulk = np.tile([0.5, 0.5, 0, 0], (10, 1)) @ signature * rng.lognormal(0, 0.4, (10, 120))
    model = RobustRegression()
    assert (solve_huber(signature, bulk) < 0).any()
    np.testing.assert_allclose(model._solve(signature, bulk), np.maximum(solve_huber(signature, bulk), 0))


def test_sample_without_expression_gets_equal_fractions(profiles, shares):
    model = train(profiles, mixtures(profiles, shares))
    np.testing.assert_array_equal(model._fractions(np.zeros((1, len(model.genes_)))), 0)


def test_types_with_identical_profiles_share_their_weight_and_empty_ones_get_none():
    rng = np.random.default_rng(0)
    signature = rng.gamma(0.5, 1, (4, 100))
    signature[1], signature[3] = signature[0], 0
    bulk = rng.dirichlet(np.ones(4), 6) @ signature * rng.lognormal(0, 0.3, (6, 100))
    found = solve_huber(signature, bulk)
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-3)
    np.testing.assert_array_equal(found[:, 3], 0)


def test_no_iterations_are_refused():
    with pytest.raises(ValueError, match="Expected max_iterations of at least 1, found 0"):
        RobustRegression(max_iterations=0)
