"""MuSiC against MuSiC 1.0.0."""

from __future__ import annotations

import pandas as pd
import pytest

from scdeconv._data.reference import Reference
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.least_squares import solve_weighted
from scdeconv._stats.solvers import subject_weights

# half of the last digit of tables with 9 digits, and of large tables with 7
ROUNDING_9, ROUNDING_7 = 6e-10, 6e-7


@pytest.fixture(scope="module")
def model(unpaired, train):
    return train("MuSiC", unpaired)


@pytest.fixture(scope="module")
def sample_sums(model, bulk):
    """Bulk as MuSiC fits it: 100 times the share of each gene."""
    return model.state_.scaled(bulk[:, model.genes_].X)


def by_gene(values, rows, model):
    return pd.DataFrame(values, rows, model.genes_)


CELL_SIZES = {"Mono": 2, "Epithelial": 4, "CD4_T": 1, "CD8_T": 1, "B": 1, "NK": 1}


@pytest.mark.parametrize(
    ("table", "options"),
    [("music", {}), ("music_covariance", {"covariance": True}), ("music_cell_size", {"cell_sizes": CELL_SIZES})],
)
def test_fractions_equal_the_original(unpaired, bulk, train, assert_equals_original, table, options):
    # measured 4.7e-10, 4.8e-10 and 5.0e-10
    assert_equals_original(train("MuSiC", unpaired, **options).predict(bulk), table, atol=ROUNDING_9)


def test_fractions_within_a_group_equal_the_original(unpaired, bulk, train, read_original, assert_equals_original):
    markers = list(read_original("music_cluster_markers").index)
    model = train("MuSiC", unpaired, groups={"T": ["CD4_T", "CD8_T"]}, group_markers={"T": markers})
    # measured 5.0e-10
    assert_equals_original(model.predict(bulk), "music_cluster", atol=ROUNDING_9)


def test_converged_fractions_equal_the_original(model, bulk, assert_equals_original, monkeypatch):
    monkeypatch.setattr(subject_weights, "TOLERANCE", 1e-10)
    monkeypatch.setattr(subject_weights, "MAX_ITERATIONS", 5000)
    # measured 4.5e-10
    assert_equals_original(model.predict(bulk), "music_eps1e-10", atol=ROUNDING_9)


def test_unweighted_fractions_equal_the_original(model, sample_sums, bulk, assert_equals_original):
    weights = solve_weighted(model.state_.types.design, sample_sums, (sample_sums > 0).astype(float))
    table = pd.DataFrame(to_fractions(weights), bulk.obs_names, model.cell_types_)
    # measured 4.9e-10
    assert_equals_original(table, "music_nnls", atol=ROUNDING_9)


def test_gene_weights_equal_the_original(model, sample_sums, bulk, assert_equals_original):
    weights = by_gene(model.state_.first_fit(sample_sums)[2].gene_weights, bulk.obs_names, model)
    # measured 4.9e-7; genes without counts have no weight in either
    assert_equals_original(weights.where(weights > 0), "music_gene_weights", rtol=ROUNDING_7)


def test_variances_of_fractions_equal_the_original(model, bulk, assert_equals_original):
    # measured 3.2e-9
    assert_equals_original(model.standard_error(bulk) ** 2, "music_var_prop", rtol=6e-9)


def test_mean_shares_of_genes_equal_the_original(model, assert_equals_original):
    # measured 4.9e-7
    assert_equals_original(by_gene(model.state_.types.mean, model.cell_types_, model), "music_theta", rtol=ROUNDING_7)


def test_variances_between_donors_equal_the_original(model, assert_equals_original):
    # measured 4.7e-7
    assert_equals_original(
        by_gene(model.state_.types.variance, model.cell_types_, model), "music_sigma", rtol=ROUNDING_7
    )


def test_cell_sizes_of_donors_equal_the_original(model, unpaired, assert_equals_original):
    _, totals, n_cells = Reference(unpaired, model.genes_).by_donor()
    donors = sorted(unpaired["sc"].obs["donor"].unique())
    # measured 3.9e-9
    assert_equals_original(pd.DataFrame(totals / n_cells, donors, model.cell_types_), "music_sizes", rtol=6e-9)
