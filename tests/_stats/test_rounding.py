from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import metrics, tl
from scdeconv._stats.rounding import deviations_from_mean


@pytest.mark.parametrize("level", [1e-30, 0.1, 1e12])
def test_equal_values_have_zero_deviation(level):
    # a mean of three equal values can differ from them by one unit in the last place
    values = np.repeat([[level, level / 3, 0.0]], 7, axis=0)
    values[::2, 1] = np.nextafter(values[::2, 1], np.inf)
    assert not deviations_from_mean(values).any()


def test_real_differences_are_kept():
    values = np.random.default_rng(0).normal(1e6, 1e-6, (20, 3))
    np.testing.assert_array_equal(deviations_from_mean(values), values - values.mean(axis=0))


def test_nan_stays_nan():
    assert np.isnan(deviations_from_mean(np.array([[1.0], [np.nan]]))).all()


def test_correlation_of_nearly_constant_fractions_is_nan():
    measured = np.linspace(0.1, 0.9, 9)[:, None]
    predicted = np.full((9, 1), 0.1 + 0.2)
    predicted[::2] = 0.3
    assert np.isnan(metrics.pearson(measured, predicted))
    assert metrics.ccc(measured, predicted) == 0


def test_unexpressed_gene_without_noise_is_not_significant():
    rng = np.random.default_rng(0)
    fractions = pd.DataFrame(rng.dirichlet(np.ones(3), 30), [f"S{i}" for i in range(30)], list("ABC"))
    profiles = rng.gamma(1, 1000, (3, 40))
    profiles[0, :20] = 0
    # the last gene makes the totals equal, so CPM keep the proportions of the profiles
    profiles[:, -1] += 1e6 - profiles.sum(axis=1)
    bulk = AnnData(fractions.to_numpy() @ profiles, obs=pd.DataFrame(index=fractions.index))
    bulk.obsm["fractions"] = fractions
    found = tl.group_expression(bulk)
    assert (found.layers["p_value"][0, :20] > 0.05).all()
    assert (found.layers["p_value"][1:, :20] < 1e-6).all()
