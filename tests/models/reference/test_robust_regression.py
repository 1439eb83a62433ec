from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp, tl
from scdeconv._stats.least_squares import solve_huber
from scdeconv.models.reference.robust_regression import RobustRegressionState

TYPES = ["B cell", "NK cell", "T cell"]
SIZES = np.array([1.0, 4.0, 10.0])


def mixtures(profiles, shares):
    return AnnData(300 * shares.to_numpy() @ profiles.X, obs=shares[[]], var=profiles.var)


def train(profiles, bulk, **arguments):
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        mdata = pp.pair(bulk=bulk, profiles=profiles)
    return tl.train(mdata, "robust_regression", **arguments)


def test_noise_free_fractions_of_cells_are_recovered(profiles, shares):
    bulk = mixtures(profiles, shares)
    pd.testing.assert_frame_equal(train(profiles, bulk).predict(bulk), shares, atol=1e-6)


def test_mixtures_are_recovered_despite_outlier_genes(profiles, shares):
    """More than half of the genes fit, so the scale of the residuals goes to zero."""
    bulk = mixtures(profiles, shares)
    model = train(profiles, bulk, max_iterations=1000)
    bulk.X[:, :5] *= 10
    assert np.abs(model.predict(bulk) - shares).to_numpy().max() < 1e-3


def test_depth_and_other_samples_do_not_matter(profiles, shares):
    bulk = mixtures(profiles, shares)
    bulk.X = bulk.X * np.random.default_rng(0).lognormal(0, 0.3, bulk.shape)
    model = train(profiles, bulk)
    expected = model.predict(bulk)
    pd.testing.assert_frame_equal(model.predict(bulk[[2]].copy()), expected.iloc[[2]], atol=1e-9)
    bulk.X = bulk.X * 1e3
    pd.testing.assert_frame_equal(model.predict(bulk), expected, atol=1e-9)


def test_negative_coefficients_become_zero(mixed):
    signature, rng = mixed[0], np.random.default_rng(1)
    bulk = np.tile([0.5, 0.5, 0, 0], (10, 1)) @ signature * rng.lognormal(0, 0.4, (10, 120))
    assert (solve_huber(signature, bulk) < 0).any()
    state = RobustRegressionState(signature=signature, max_iterations=20)
    np.testing.assert_allclose(state.predict(bulk), np.maximum(solve_huber(signature, bulk), 0))


def test_sample_without_expression_gets_nan(profiles, shares):
    model = train(profiles, mixtures(profiles, shares))
    empty = np.zeros((1, len(model.genes_)))
    np.testing.assert_array_equal(model.state_.predict(empty), 0)
    assert np.isnan(model.state_.estimate(empty).fractions).all()
