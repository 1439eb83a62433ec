"""Bisque against BisqueRNA 1.0.5 with ``use.overlap=TRUE``."""

from __future__ import annotations

import pandas as pd
import pytest

from scdeconv._data.modalities import make_mudata
from scdeconv._stats.expression import to_shares


@pytest.fixture(scope="module")
def model(paired, train):
    return train("Bisque", paired)


def test_fractions_equal_the_original(model, bulk, assert_equals_original):
    # measured 4.9e-10: the rounding of the table
    assert_equals_original(model.predict(bulk), "bisque", atol=1e-9)


def test_transformed_bulk_equals_the_original(model, bulk, assert_equals_original):
    state = model.state_
    transformed = state.level + (to_shares(bulk.X) - state.reference) * state.slope
    table = pd.DataFrame(1e6 * transformed, bulk.obs_names, model.genes_)
    # measured 4.9e-7: the rounding of the table
    assert_equals_original(table, "bisque_transformed_bulk", rtol=6e-7)


def test_pooled_counts_as_reference_change_the_fractions(paired, bulk, train, read_original):
    """Without cells the profiles, which are pooled counts, are the reference."""
    without_cells = make_mudata({name: paired[name] for name in ("bulk", "profiles")})
    predicted = train("Bisque", without_cells).predict(bulk)
    difference = predicted - read_original("bisque", predicted.index, predicted.columns)
    # measured 0.0059
    assert 0.005 < difference.abs().max(axis=None) < 0.007
