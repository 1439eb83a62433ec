from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import scdeconv
from scdeconv import pp, tl
from scdeconv.models import NNLS

QUICK = {
    "residual_dnn": {"max_epochs": 1, "hidden": (4,), "n_members": 2, "simulate": 20},
    "simulation_ridge": {"n_simulated": 50},
    "scaden": {"max_steps": 1},
}


@pytest.fixture
def model(pairs):
    return tl.train(pairs, "nnls")


@pytest.fixture
def bulk(cohort):
    return cohort[1].copy()


def test_fractions_and_their_record_are_written(model, bulk):
    assert tl.predict(bulk, model) is None
    pd.testing.assert_frame_equal(bulk.obsm["fractions"], model.predict(bulk))
    record = dict(bulk.uns["scdeconv"]["fractions"])
    assert record.pop("held_out").loc["all entries", "rmse"] == pytest.approx(model.held_out_.errors()[0])
    assert record == {
        "method": "nnls",
        "version": scdeconv.__version__,
        "parameters": {},
        "fraction_kind": "cell",
        "n_genes": 200,
        "seed": None,
        "trained_on": model.summary_,
        "n_held_out_donors": 10,
    }


def test_record_has_the_errors_on_held_out_donors(pairs, bulk, tmp_path):
    model = tl.train(pairs, "ridge")
    tl.predict(bulk, model)
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    record = anndata.read_h5ad(tmp_path / "bulk.h5ad").uns["scdeconv"]["fractions"]
    rmse, of_mean = model.held_out_.errors()
    found = record["held_out"].loc["all entries"]
    assert found["rmse"] == pytest.approx(rmse)
    assert found["rmse_mean_composition"] == pytest.approx(of_mean)
    assert list(record["held_out"].index[:-2]) == model.cell_types_
    assert record["n_held_out_donors"] == 10
    tl.convert_fractions(bulk, dict.fromkeys(model.cell_types_, 2.0), to="rna")
    assert "held_out" not in bulk.uns["scdeconv"]["rna_fractions"]


def test_record_of_a_network_names_parameters_and_seed(pairs, bulk):
    tl.predict(bulk, tl.train(pairs, "residual_dnn", seed=5, **QUICK["residual_dnn"]))
    record = bulk.uns["scdeconv"]["fractions"]
    assert record["method"] == "residual_dnn"
    assert record["seed"] == 5
    assert record["parameters"]["hidden"] == [4]
    assert record["parameters"]["base"] == "calibrated_map"


def test_nothing_else_of_the_object_is_changed(model, bulk, unchanged):
    bulk.uns["scdeconv"] = {"pair": {"n_genes": 3}}
    bulk.obsm["other"] = np.ones((bulk.n_obs, 2))
    with unchanged(bulk):
        tl.predict(bulk, model)
        del bulk.obsm["fractions"], bulk.obsm["fractions_quality"], bulk.uns["scdeconv"]["fractions"]


def test_several_methods_can_be_stored_together(pairs, model, bulk):
    tl.predict(bulk, model)
    tl.predict(bulk, tl.train(pairs, "mean_composition"), key_added="baseline")
    assert set(bulk.uns["scdeconv"]) == {"fractions", "baseline"}
    assert not bulk.obsm["fractions"].equals(bulk.obsm["baseline"])


def test_layer_is_read_instead_of_x(model, bulk):
    expected = model.predict(bulk)
    bulk.layers["counts"], bulk.X = bulk.X, np.log1p(bulk.X)
    tl.predict(bulk, model, layer="counts")
    pd.testing.assert_frame_equal(bulk.obsm["fractions"], expected)


def test_failed_prediction_writes_nothing(model, bulk, unchanged):
    fewer = bulk[:, ~bulk.var_names.isin(model.genes_[:150])].copy()
    with unchanged(fewer), pytest.raises(ValueError, match="at least half of the model's 200 genes"):
        tl.predict(fewer, model)


@pytest.mark.parametrize("name", tl.methods().index)
def test_predictions_survive_the_h5ad_round_trip(pairs, bulk, name, tmp_path):
    del bulk.uns["cohort"]
    model = tl.train(pairs, name, **QUICK.get(name, {}))
    tl.predict(bulk, model)
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    read = anndata.read_h5ad(tmp_path / "bulk.h5ad")
    pd.testing.assert_frame_equal(read.obsm["fractions"], bulk.obsm["fractions"], check_names=False)
    record, expected = (adata.uns["scdeconv"]["fractions"] for adata in (read, bulk))
    assert {key: record.get(key) for key in ("method", "version", "fraction_kind", "n_genes", "seed")} == {
        key: expected[key] for key in ("method", "version", "fraction_kind", "n_genes", "seed")
    }
    for key, value in expected["parameters"].items():
        assert np.array_equal(record["parameters"][key], value)


def test_saved_model_predicts_bulk_from_a_file(model, bulk, tmp_path):
    model.save(tmp_path / "model")
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    read = anndata.read_h5ad(tmp_path / "bulk.h5ad")
    tl.predict(read, type(model).load(tmp_path / "model"))
    pd.testing.assert_frame_equal(read.obsm["fractions"], model.predict(bulk))


def tpm(adata):
    values = adata.X.toarray() if sp.issparse(adata.X) else adata.X
    return AnnData(1e6 * values / values.sum(axis=1, keepdims=True) + 0.1, obs=adata.obs, var=adata.var)


def test_another_unit_than_in_training_warns(cohort, tmp_path):
    cells, bulk = cohort
    model = tl.train(pp.pair(cells, bulk), "nnls")
    model.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="Expected counts in adata, the unit of the training bulk, found TPM") as seen:
        tl.predict(tpm(bulk), NNLS.load(tmp_path / "model"))
    assert len(seen) == 1
    assert seen[0].filename == __file__
    with pytest.warns(UserWarning, match="Expected TPM in adata, the unit of the training bulk, found counts"):
        tl.predict(bulk.copy(), tl.train(pp.pair(cells, tpm(bulk)), "nnls"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        tl.predict(bulk.copy(), model)


def test_comparisons_of_earlier_fractions_are_removed(model, bulk, capsys):
    for key in ("fractions", "second"):
        tl.predict(bulk, model, key_added=key)
        bulk.obs["state"] = ["ill", "well"] * (bulk.n_obs // 2)
        tl.compare_fractions(bulk, "state", key=key, key_added=f"of_{key}")
    tl.predict(bulk, model)
    assert "of_fractions" not in bulk.uns["scdeconv"]
    assert "of_second" in bulk.uns["scdeconv"]
    assert "removed 'of_fractions' of the earlier 'fractions'" in capsys.readouterr().out
