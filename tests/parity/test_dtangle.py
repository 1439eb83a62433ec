"""dtangle and hspe against dtangle 2.0.9 @ 3970c0c and hspe 0.1 @ b943377."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def model(unpaired, train):
    return train("Dtangle", unpaired)


def test_markers_equal_the_original(model, read_original):
    original = read_original("dtangle_markers")["gene"]
    for code, name in enumerate(model.cell_types_):
        state, genes = model.state_, pd.Index(model.genes_)
        best = sorted((-state.score[gene], gene) for gene in range(len(genes)) if state.cell_type[gene] == code)
        assert list(genes[[gene for _, gene in best[: len(best) // 10]]]) == list(original[name])


def test_proportions_equal_the_original(model, bulk, assert_equals_original):
    # measured 1.1e-8: the slope is published with 7 digits
    assert_equals_original(model.predict(bulk), "dtangle", atol=2e-8)


def test_proportions_with_slope_one_equal_the_original(model, bulk, assert_equals_original):
    state = replace(model.state_, gamma=1.0)
    found = pd.DataFrame(state.predict(bulk.X), bulk.obs_names, model.cell_types_)
    # measured 4.9e-10: the rounding of the table
    assert_equals_original(found, "dtangle_gamma1", atol=1e-9)


def test_hspe_equals_the_original(unpaired, bulk, train, assert_equals_original):
    # measured 2.1e-7; two seeds of the original differ by 4e-7
    assert_equals_original(train("HSPE", unpaired).predict(bulk), "hspe", atol=1e-6)
