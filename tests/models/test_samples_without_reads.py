"""Samples and donors without reads: NaN with a warning in every method, and no pair."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import models, pp, tl

QUICK = {
    "simplednn": {"n_members": 2, "hidden": (8,), "max_epochs": 2},
    "residual_dnn": {"n_members": 2, "hidden": (8,), "simulate": 20, "max_epochs": 2},
    "scaden": {"max_steps": 2, "n_samples": 40},
    "simulation_ridge": {"n_simulated": 40},
}
EMPTY = 1


@pytest.fixture(scope="module")
def paired(cohort):
    return pp.pair(*cohort)


@pytest.fixture(scope="module", params=tl.methods().index)
def model(request, paired):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return tl.train(paired, request.param, **QUICK.get(request.param, {}))


@pytest.fixture
def bulk(cohort):
    """New samples: the training samples would be recognised."""
    bulk = cohort[1].copy()
    bulk.X = np.random.default_rng(0).poisson(bulk.X * 0.9)
    return bulk


def without_reads(adata, rows, columns=slice(None)):
    """Return a copy with zeros in some rows."""
    adata = adata.copy()
    x = np.array(adata.X.toarray() if sp.issparse(adata.X) else adata.X)
    x[np.ix_(rows, np.arange(adata.n_vars)[columns])] = 0
    adata.X = sp.csr_matrix(x) if sp.issparse(adata.X) else x
    return adata


def further_genes(adata):
    """Return a copy with three more genes that the other input does not have."""
    x = sp.csr_matrix(sp.hstack([sp.csr_matrix(adata.X), np.full((adata.n_obs, 3), 5)]))
    wide = AnnData(x if sp.issparse(adata.X) else x.toarray(), obs=adata.obs)
    wide.var_names = [*adata.var_names, "further1", "further2", "further3"]
    return wide


def test_sample_without_reads_has_no_fractions(model, bulk):
    others = np.arange(bulk.n_obs) != EMPTY
    expected = model.predict(bulk[others].copy())
    with pytest.warns(
        UserWarning, match=f"1 of 12 samples have no reads in the genes of the model.*'{bulk.obs_names[EMPTY]}'"
    ):
        found = model.predict(without_reads(bulk, [EMPTY]))
    assert found.iloc[EMPTY].isna().all()
    np.testing.assert_allclose(found[others], expected, atol=1e-6)


def test_reads_in_other_genes_do_not_help(model, bulk):
    if not len(model.genes_):
        return
    bulk = further_genes(bulk)
    found = model.predict(without_reads(bulk, [EMPTY], bulk.var_names.isin(model.genes_)))
    assert list(found.isna().all(axis=1)) == [row == EMPTY for row in range(bulk.n_obs)]


def test_samples_without_any_reads_have_no_fractions(model, bulk):
    with pytest.warns(UserWarning, match="12 of 12 samples have no reads"):
        found = model.estimate(without_reads(bulk, list(range(bulk.n_obs))))
    assert found["fractions"].isna().all(axis=None)


def test_intervals_and_quality_are_missing_too(model, bulk):
    coverage = 0.5 if model.held_out_ is not None else None
    adata = without_reads(bulk, [EMPTY])
    tl.predict(adata, model, coverage=coverage)
    if coverage is not None:
        for side in ("lower", "upper"):
            table = adata.obsm[f"fractions_{side}"]
            assert list(table.isna().all(axis=1)) == [row == EMPTY for row in range(bulk.n_obs)]
    if "fractions_quality" not in adata.obsm:
        assert not len(model.genes_)
        return
    quality = adata.obsm["fractions_quality"]
    assert quality["few_reads"].tolist() == [row == EMPTY for row in range(bulk.n_obs)]
    assert quality.select_dtypes(float).iloc[EMPTY].isna().all()
    assert quality.get("outside", quality["few_reads"]).iloc[EMPTY]


def test_samples_with_few_reads_are_flagged(model, bulk):
    if not len(model.genes_):
        return
    x = np.array(bulk.X)
    x[EMPTY] = np.random.default_rng(0).binomial(x[EMPTY], 0.02)
    bulk.X = x
    with pytest.warns(
        UserWarning, match=f"less than 10 % of the reads of the training bulk.*'{bulk.obs_names[EMPTY]}'"
    ):
        tl.predict(bulk, model)
    assert list(bulk.obsm["fractions_quality"]["few_reads"]) == [row == EMPTY for row in range(bulk.n_obs)]
    assert bulk.obsm["fractions"].notna().all(axis=None)


@dataclass(frozen=True, kw_only=True)
class FailingState(models.State):
    """Weights that are zero, NaN or infinite in the first three samples."""

    def predict(self, expression):
        weights = np.ones((len(expression), 4))
        weights[0], weights[1], weights[2, 0] = 0, np.nan, np.inf
        return weights


class Failing(models.NNLS):
    state_type = FailingState

    def fit(self, data, without=()):
        return FailingState()


def test_failed_estimates_are_missing_with_a_warning(paired, bulk):
    failing = Failing(paired)
    failing.train(held_out=False)
    with pytest.warns(UserWarning, match="found no composition of 3 samples, so their fractions are NaN"):
        found = failing.predict(bulk)
    assert list(found.isna().all(axis=1)) == [row < 3 for row in range(bulk.n_obs)]


def test_tables_derived_from_reads_have_missing_rows(paired, bulk):
    empty = without_reads(bulk, [EMPTY])
    errors = tl.train(paired, "music").standard_error(empty)
    scores = tl.train(paired, "cibersort", absolute="sig.score").absolute_scores(empty)
    tl.expression(empty, tl.train(paired, "bayesprism", outlier_share=1), cell_types=["Macrophage"])
    layer = empty.layers["expression_Macrophage"]
    for table in (errors, scores, pd.DataFrame(layer[:, np.isfinite(layer[0])])):
        assert list(table.isna().all(axis=1)) == [row == EMPTY for row in range(bulk.n_obs)]


def test_samples_without_reads_do_not_change_normalisation(paired, bulk):
    model = tl.train(paired, "cibersort", quantile_normalise=True)
    others = np.arange(bulk.n_obs) != EMPTY
    expected = model.predict(bulk[others].copy())
    np.testing.assert_allclose(model.predict(without_reads(bulk, [EMPTY]))[others], expected)


@pytest.mark.parametrize("genes", ["all", "shared"])
@pytest.mark.parametrize("side", ["bulk", "cells"])
def test_donors_without_reads_are_no_pairs(cohort, paired, side, genes):
    cells, bulk = cohort
    first, *others = pp.paired_donors(paired)
    adata = {"bulk": bulk, "cells": cells}[side]
    adata = without_reads(adata, np.flatnonzero(adata.obs["donor"] == first))
    adata = further_genes(adata) if genes == "shared" else adata
    with pytest.warns(UserWarning, match="no pairs"):
        mdata = pp.pair(*((cells, adata) if side == "bulk" else (adata, bulk)))
    assert pp.paired_donors(mdata) == others
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert tl.train(mdata, "ridge").held_out_.predicted.shape[0] == len(others)


def test_cells_without_counts_are_left_out(cohort, paired):
    cells = without_reads(cohort[0], [3, 5])
    with pytest.warns(
        UserWarning, match=f"2 of {cells.n_obs} cells have no counts and are left out: '{cells.obs_names[3]}'"
    ):
        mdata = pp.pair(cells, cohort[1])
    assert mdata["sc"].n_obs == cells.n_obs - 2
    assert mdata["bulk"].obsm["measured_cells"].sum().sum() <= paired["bulk"].obsm["measured_cells"].sum().sum()
    with pytest.raises(ValueError, match="Expected cells with counts, found zeros only"):
        pp.pair(without_reads(cells, list(range(cells.n_obs))), cohort[1])


def test_pairs_without_reads_in_selected_genes_are_said(empty_sample_pairs):
    name = empty_sample_pairs["bulk"].obs_names[0]
    known = bool(empty_sample_pairs["bulk"].obsm["measured_fractions"].iloc[0].notna().all())
    for method in ("ridge", "simplednn"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            tl.train(empty_sample_pairs, method, **QUICK.get(method, {}))
        said = [w for w in caught if f"are no pairs: '{name}'" in str(w.message)]
        assert bool(said) == known
