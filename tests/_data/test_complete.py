"""Completion of partly measured compositions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv._data.fractions import complete_fractions, has_measured

NAN = np.nan


def table(rows):
    return pd.DataFrame(rows, columns=["a", "b", "c", "d"][: len(rows[0])], index=[f"s{i}" for i in range(len(rows))])


def test_missing_types_share_the_rest_by_the_mean():
    whole = [[0.4, 0.3, 0.2, 0.1]] * 50
    found = complete_fractions(table([*whole, [0.7, NAN, NAN, 0.0]]))
    np.testing.assert_allclose(found.iloc[-1], [0.7, 0.18, 0.12, 0.0])
    np.testing.assert_array_equal(found.iloc[:-1], whole)


def test_shares_of_the_measured_types_are_scaled():
    found = complete_fractions(table([*[[0.4, 0.3, 0.2, 0.1]] * 500, [0.5, 0.5, NAN, NAN]]))
    np.testing.assert_allclose(found.iloc[-1], [0.35, 0.35, 0.2, 0.1], atol=1e-3)


def test_single_missing_type_is_the_rest():
    found = complete_fractions(table([[0.5, 0.3, 0.2], [0.6, 0.3, NAN], [NAN, 0.2, 0.3]]))
    np.testing.assert_allclose(found.iloc[1:], [[0.6, 0.3, 0.1], [0.5, 0.2, 0.3]])


def test_completed_rows_reproduce_their_mean():
    rng = np.random.default_rng(0)
    values = rng.dirichlet(np.ones(4), 30)
    values[rng.random(values.shape) < 0.3] = NAN
    values = values[~np.isnan(values).all(axis=1)]
    found = complete_fractions(table(values.tolist())).to_numpy()
    mean = found.mean(axis=0)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    for row, value in zip(found, values, strict=True):
        missing = np.isnan(value)
        if missing.sum() == 0 or np.nansum(value) < 0.99:
            np.testing.assert_allclose(row[~missing], value[~missing])
        np.testing.assert_allclose(row[missing] * mean[missing].sum(), mean[missing] * row[missing].sum(), atol=1e-3)


def test_prior_gives_types_that_no_row_has():
    found = complete_fractions(table([[0.6, 0.2, NAN, NAN]]), {"c": 0.03, "d": 0.01})
    np.testing.assert_allclose(found, [[0.6, 0.2, 0.15, 0.05]])
    np.testing.assert_allclose(complete_fractions(table([[0.6, 0.2, NAN, NAN]])), [[0.6, 0.2, 0.1, 0.1]])


def test_complete_rows_are_returned_as_they_are():
    rows = table([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    assert complete_fractions(rows) is rows


def test_samples_with_any_type_are_measured():
    assert has_measured(table([[0.5, NAN], [NAN, NAN], [0.2, 0.8]])).tolist() == [True, False, True]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_extreme_measured_values_are_completed(value):
    found = complete_fractions(table([[0.4, 0.6, 0.0], [value, NAN, NAN]]))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.isfinite(found).all(axis=None)
