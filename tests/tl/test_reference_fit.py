from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import pandas as pd
import pytest

from scdeconv import pp, tl
from scdeconv._data.annotated import make_adata
from scdeconv.datasets import paired_cohort


def without_pairs(seed, bulk_seed=None):
    """Bulk and cells of other donors; with another seed, of another tissue."""
    settings = {"n_donors": 3, "n_bulk_only": 9, "n_reference_only": 5, "n_genes": 400, "cells_per_donor": (100, 150)}
    cells, bulk = paired_cohort(**settings, seed=seed)
    if bulk_seed is not None:
        bulk = paired_cohort(**settings, seed=bulk_seed)[1]
    return cells[~cells.obs["donor"].isin(bulk.obs["donor"])].copy(), bulk


def check(cells, bulk):
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = pp.pair(cells, bulk)
        tl.reference_fit(mdata)
    return mdata


@pytest.fixture(scope="module")
def complete():
    return [check(*without_pairs(seed)) for seed in range(3)]


def test_results_have_the_described_columns(complete):
    bulk = complete[0]["bulk"]
    genes, samples = bulk.varm["reference_fit"], bulk.obsm["reference_fit"]
    assert list(genes) == ["symbol", "bulk", "fit", "log2_ratio", "variation", "unexplained"]
    assert list(samples) == ["unexplained", "correlation"]
    assert genes.index.equals(bulk.var_names)
    assert samples.index.equals(bulk.obs_names)
    assert samples["unexplained"].between(0, 1).all()
    assert genes["bulk"].sum() == pytest.approx(1e6)
    assert bulk.uns["scdeconv"]["reference_fit"]["n_genes"] == bulk.n_vars


def test_markers_of_a_missing_type_are_first(complete):
    for seed, full in enumerate(complete):
        cells, bulk = without_pairs(seed)
        profiles = full["profiles"].to_df()
        shares = profiles.div(profiles.sum(axis=1), axis=0)
        assert bulk.obsm["true_fractions"].mean().idxmax() == "Macrophage"
        mdata = check(cells[cells.obs["cell_type"] != "Macrophage"].copy(), bulk)
        ratio = mdata["bulk"].varm["reference_fit"]["log2_ratio"].rank(pct=True)
        medians = {name: ratio[shares.loc[name] > 3 * shares.drop(index=name).max()].median() for name in shares.index}
        assert max(medians, key=medians.get) == "Macrophage"
        before, after = (each["bulk"].obsm["reference_fit"]["unexplained"].median() for each in (full, mdata))
        assert after > before


def test_another_tissue_is_found(complete):
    for seed, full in enumerate(complete):
        wrong = check(*without_pairs((seed + 1) % 3, bulk_seed=seed))["bulk"].obsm["reference_fit"].median()
        right = full["bulk"].obsm["reference_fit"].median()
        assert wrong["unexplained"] > max(0.15, right["unexplained"] + 0.05)
        assert wrong["correlation"] < right["correlation"] - 0.2


def test_another_tissue_gives_a_warning(capsys):
    cells, bulk = without_pairs(1, bulk_seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mdata = pp.pair(cells, bulk)
    with pytest.warns(UserWarning, match="Expected a reference that explains the bulk, found .* of the expression"):
        tl.reference_fit(mdata)
    assert "genes with the highest ratio: " in capsys.readouterr().out


def test_fractions_and_order_of_samples_change_nothing(complete):
    cells, bulk = without_pairs(0)
    order = np.random.default_rng(0).permutation(bulk.n_obs)
    again = check(cells, bulk[order].copy())["bulk"]
    bulk = complete[0]["bulk"]
    pd.testing.assert_frame_equal(
        again.obsm["reference_fit"].loc[bulk.obs_names], bulk.obsm["reference_fit"], rtol=1e-6
    )
    pd.testing.assert_frame_equal(again.varm["reference_fit"], bulk.varm["reference_fit"], rtol=1e-6)


def test_samples_without_reads_are_nan():
    cells, bulk = without_pairs(0)
    bulk.X[2] = 0
    found = check(cells, bulk)["bulk"].obsm["reference_fit"]
    assert found.isna().all(axis=1).to_numpy().nonzero()[0].tolist() == [2]


def test_ensembl_identifiers_get_symbols(complete):
    cells, bulk = without_pairs(0)
    names = bulk.var_names.to_list()
    names[:2] = ["ENSG00000010610.9", "ENSG00000251562"]
    cells.var_names = bulk.var_names = names
    symbols = check(cells, bulk)["bulk"].varm["reference_fit"]["symbol"]
    assert symbols.iloc[:3].tolist() == ["CD4", "MALAT1", names[2]]


def test_data_without_a_reference_are_refused():
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(5)]
    bulk = make_adata(rng.poisson(50.0, (5, 60)).astype(float), obs=pd.DataFrame(index=names))
    bulk.obsm["measured_fractions"] = pd.DataFrame({"A": 0.4, "B": 0.6}, names)
    with contextlib.redirect_stdout(io.StringIO()):
        mdata = pp.pair(bulk=bulk)
    with pytest.raises(ValueError, match="Expected a reference for tl.reference_fit"):
        tl.reference_fit(mdata)
    assert not mdata["bulk"].varm
