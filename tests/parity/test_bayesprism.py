"""The fixed point against BayesPrism 2.2.3, whose Gibbs sampling is random (posterior standard deviation up to 0.003)."""

from __future__ import annotations

import pandas as pd
import pytest

# the converged fixed point approximates the posterior mean
CONVERGED = 5000


@pytest.fixture(scope="module")
def first(unpaired, train):
    return train("BayesPrism", unpaired, n_iterations=CONVERGED)


@pytest.fixture(scope="module")
def updated(unpaired, train):
    return train("BayesPrism", unpaired, n_iterations=CONVERGED, update_reference=True)


def test_first_fractions_are_close_to_the_original(first, bulk, assert_equals_original):
    # measured 8.2e-4
    assert_equals_original(first.predict(bulk), "bayesprism_initial", atol=1e-3)


def test_updated_fractions_are_close_to_the_original(updated, bulk, assert_equals_original):
    # measured 1.2e-3
    assert_equals_original(updated.predict(bulk), "bayesprism", atol=1.5e-3)


def test_updated_profiles_are_close_to_the_original(updated, assert_equals_original):
    table = pd.DataFrame(updated.state_.updated, updated.cell_types_, updated.genes_)
    # measured 5.3e-5; the update moves profiles by up to 0.098
    assert_equals_original(table, "bayesprism_psi", atol=7e-5)


def test_reads_are_close_to_the_original(first, bulk, assert_equals_original):
    reads = dict(first.predict_expression(bulk, cell_types=["CD8_T"]))["CD8_T"]
    # measured 8.9 reads, of up to 17,000
    assert_equals_original(reads, "bayesprism_Z_CD8_T", atol=11)
