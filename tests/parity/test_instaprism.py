"""BayesPrism's fixed point against InstaPrism 0.1.6."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scdeconv._stats.expression import to_shares
from scdeconv._stats.solvers.read_mixtures import mix

ROUNDING_9 = 6e-10


@pytest.fixture(scope="module")
def model(unpaired, train):
    return train("BayesPrism", unpaired)


def test_outlier_filter_keeps_the_genes_of_the_original(model, read_original):
    assert set(model.genes_) == set(read_original("instaprism_genes").index)
    assert len(model.genes_) == 475


def test_fractions_equal_the_original(model, bulk, assert_equals_original):
    # measured 5.0e-10
    assert_equals_original(model.predict(bulk), "instaprism", atol=ROUNDING_9)


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("instaprism_all_genes", {}),
        ("instaprism_all_genes_5000", {"n_iterations": 5000}),
        ("instaprism_states", {"cell_state_key": "cell_state"}),
    ],
)
def test_fractions_of_all_genes_equal_the_original(unpaired, bulk, train, assert_equals_original, table, options):
    predicted = train("BayesPrism", unpaired, outlier_share=1, **options).predict(bulk)
    # measured 4.8e-10, 5.0e-10 and 4.9e-10
    assert_equals_original(predicted, table, atol=ROUNDING_9)


def test_updated_reference_is_close_to_the_original(unpaired, bulk, train, assert_equals_original):
    """The update of InstaPrism has no prior; ours has the prior of BayesPrism, which has little influence at this depth."""
    predicted = train("BayesPrism", unpaired, outlier_share=1, update_reference=True).predict(bulk)
    # measured 6.2e-6
    assert_equals_original(predicted, "instaprism_update", atol=8e-6)


def test_profiles_equal_the_original(unpaired, train, assert_equals_original):
    model = train("BayesPrism", unpaired, outlier_share=1)
    # measured 4.2e-8
    assert_equals_original(
        pd.DataFrame(model.state_.profiles, model.cell_types_, model.genes_), "instaprism_phi", rtol=6e-8
    )


def test_reads_are_close_to_the_original(model, bulk, assert_equals_original):
    """The original computes reads from profiles without the offset that its iterations, and ours, add."""
    reads = dict(model.predict_expression(bulk, cell_types=["CD8_T"]))["CD8_T"]
    # measured 0.034 reads, of up to 17,000
    assert_equals_original(reads, "instaprism_Z_CD8_T", atol=0.04)


def test_reads_without_the_offset_equal_the_original(model, bulk, assert_equals_original):
    expression = bulk[:, model.genes_].X
    weights = model.state_.decompose(expression, np.ones(len(model.genes_), dtype=bool))[0]
    profiles = to_shares(model.state_.profiles)
    of_type = weights * (np.array(model.cell_types_) == "CD8_T")
    reads = expression * mix(of_type, profiles) / mix(weights, profiles)
    # measured 5.0e-4: the rounding of the table
    assert_equals_original(pd.DataFrame(reads, bulk.obs_names, model.genes_), "instaprism_Z_CD8_T", atol=6e-4)
