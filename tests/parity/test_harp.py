"""Harp against harp 0.1.0 @ 6a07b3f with DTD 1.2.003 @ 1d01c0b, for one penalty."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv._stats.solvers.harmonised_profiles import fit_profiles

N_GENES = 500


def descend(fractions, bulk, profiles, penalty):
    """Gradient descent of the original: halved steps from 0.01, ended by the sum of absolute gradients."""
    found = profiles.copy()

    def loss(values):
        difference = values - profiles
        soft = np.logaddexp(0, difference) + np.logaddexp(0, -difference)
        return ((fractions @ values - bulk) ** 2).sum() + penalty * soft.sum()

    current = loss(found)
    for _ in range(100_000):
        slope = 2 * fractions.T @ (fractions @ found - bulk) + penalty * np.tanh((found - profiles) / 2)
        step = 0.01
        while loss(found - step * slope) - current >= -step * 1e-4 * np.sqrt((slope**2).sum()):
            step /= 2
        found = found - step * slope
        current = loss(found)
        if np.abs(slope).sum() < 1e-4 * bulk.size:
            break
    return np.maximum(found, 0)


@pytest.fixture(scope="module")
def tables(paired, read_original):
    """Measured fractions times recovery of the original, bulk and profiles in its units, as tables."""
    profiles = paired["profiles"].to_df().set_axis(list(paired["profiles"].obs["cell_type"]))
    bulk = paired["bulk"].to_df()
    recovery = read_original("harp_lambda1_alpha", profiles.index)["alpha"]
    measured = paired["bulk"].obsm["measured_fractions"][profiles.index]
    return (
        measured * recovery,
        bulk.div(bulk.sum(axis=1), axis=0) * N_GENES,
        profiles / profiles.sum(axis=1).mean() * N_GENES,
    )


@pytest.mark.slow
def test_profiles_equal_the_original_with_its_stopping_rule(tables, read_original):
    found = descend(*(table.to_numpy(dtype=float) for table in tables), 1.0)
    expected = read_original("harp_lambda1_reference", tables[2].index, tables[2].columns)
    # measured 3.1e-5; the largest value is 149
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_converged_profiles_are_close_to_the_original(tables, read_original):
    found = np.maximum(fit_profiles(*(table.to_numpy(dtype=float) for table in tables), 1.0), 0)
    difference = found - read_original("harp_lambda1_reference", tables[2].index, tables[2].columns)
    # the original has not converged: measured 2.3 and 0.057
    assert 2 < difference.abs().max(axis=None) < 2.6
    assert np.sqrt((difference**2).mean(axis=None)) < 0.06


def test_fractions_agree_with_the_original(paired, bulk, train, read_original):
    """The gene weights of six pairs are not unique. The estimates of the original do not sum to 1."""
    model = train("Harp", paired, penalty=1.0)
    found = model.predict(bulk)
    original = read_original("harp_lambda1", found.index, found.columns)
    assert original.sum(axis=1).between(1.14, 1.75).all()
    original = original.div(original.sum(axis=1), axis=0)
    # measured 0.029 in root mean square, 0.105 at most, correlation 0.980
    assert np.sqrt(((found - original) ** 2).mean(axis=None)) < 0.035
    assert (found - original).abs().max(axis=None) < 0.13
    assert np.corrcoef(found.to_numpy().ravel(), original.to_numpy().ravel())[0, 1] > 0.97
    recovery = pd.Series(model.state_.recovery, model.cell_types_)
    # measured 0.13
    np.testing.assert_allclose(recovery, read_original("harp_lambda1_alpha", recovery.index)["alpha"], rtol=0.2)
