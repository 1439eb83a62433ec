"""Estimates of training samples are named by tl.predict, in the record and by tl.evaluate."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import metrics, tl
from scdeconv._data.training_samples import training_samples
from scdeconv.models import load_class
from scdeconv.tl._folds import predict_unseen

# arguments that make training short; a new method is tested with its defaults
QUICK = {
    "simplednn": {"n_members": 2, "hidden": (8,), "max_epochs": 3},
    "residual_dnn": {"n_members": 2, "hidden": (8,), "simulate": 20, "max_epochs": 3},
    "simulation_ridge": {"n_simulated": 50},
}
PAIRED = [name for name in tl.methods().index if load_class(name).record.learns_from_pairs]
LINE = "predict: 10 samples were training samples; they get their out-of-fold predictions"


@pytest.fixture
def bulk(pairs):
    """Bulk with the measured fractions of the ten pairs."""
    return pairs["bulk"].copy()


@pytest.fixture
def ridge(pairs):
    return tl.train(pairs, "ridge")


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.filterwarnings("ignore:Expected an out-of-fold RMSE below")
def test_errors_of_the_training_cohort_are_held_out(pairs, bulk, capsys, name):
    model = tl.train(pairs, name, **QUICK.get(name, {}))
    capsys.readouterr()
    tl.predict(bulk, model, coverage=0.8)
    printed = capsys.readouterr().out
    assert printed.count(LINE) == 1
    known = bulk.obsm["measured_fractions"].dropna().index
    record = bulk.uns["scdeconv"]["fractions"]
    assert set(record["out_of_fold"]) == set(known)
    assert "in_sample" not in record
    found = metrics.rmse(bulk.obsm["measured_fractions"].loc[known], bulk.obsm["fractions"].loc[known])
    assert found == pytest.approx(model.held_out_.errors()[0])
    lower, upper = (bulk.obsm[f"fractions_{side}"] for side in ("lower", "upper"))
    assert ((lower <= bulk.obsm["fractions"] + 1e-9) & (bulk.obsm["fractions"] <= upper + 1e-9)).all(axis=None)
    assert tl.evaluate(bulk).loc["all entries", "rmse"] == pytest.approx(found)
    assert "evaluate: 10 of 10 samples have out-of-fold predictions" in capsys.readouterr().out


def test_fit_is_recorded_and_named(bulk, ridge, capsys):
    capsys.readouterr()
    with pytest.warns(UserWarning, match="10 samples were training samples and get the fit, which is no estimate"):
        tl.predict(bulk, ridge, in_sample=True)
    assert not capsys.readouterr().out
    known = bulk.obsm["measured_fractions"].dropna().index
    record = bulk.uns["scdeconv"]["fractions"]
    assert set(record["in_sample"]) == set(known)
    assert "out_of_fold" not in record
    with pytest.warns(UserWarning, match="10 of 10 samples have the fit of a model.*Errors on new samples are larger"):
        table = tl.evaluate(bulk)
    assert table.loc["all entries", "rmse"] < ridge.held_out_.errors()[0]


def test_new_samples_are_recorded_and_printed_nowhere(bulk, ridge, capsys):
    new = bulk[bulk.obsm["measured_fractions"].isna().any(axis=1)].copy()
    capsys.readouterr()
    tl.predict(new, ridge)
    assert not capsys.readouterr().out
    assert not {"out_of_fold", "in_sample", "source"} & {*new.uns["scdeconv"]["fractions"], *new.obsm}


def test_next_prediction_replaces_the_record(bulk, pairs, ridge):
    with pytest.warns(UserWarning, match="get the fit"):
        tl.predict(bulk, ridge, in_sample=True)
    tl.predict(bulk, ridge)
    assert "in_sample" not in bulk.uns["scdeconv"]["fractions"]
    tl.predict(bulk, tl.train(pairs, "nnls"))
    assert "out_of_fold" not in bulk.uns["scdeconv"]["fractions"]


@pytest.mark.parametrize(("name", "arguments"), [("ridge", {"held_out": False}), ("scaden", {"train_on": "pairs"})])
def test_models_without_held_out_donors_warn(pairs, bulk, name, arguments):
    steps = {"max_steps": 3} if name == "scaden" else {}
    model = tl.train(pairs, name, **arguments, **steps)
    with pytest.warns(UserWarning, match="get the fit.*no out-of-fold predictions of them: call tl.cross_validate"):
        tl.predict(bulk, model)
    assert len(bulk.uns["scdeconv"]["fractions"]["in_sample"]) == 10


def test_bounds_that_are_missing_are_announced(bulk, ridge):
    with pytest.warns(UserWarning, match="The bounds of 10 samples are NaN"):
        tl.predict(bulk, ridge, coverage=10 / 11)
    known = bulk.obsm["measured_fractions"].notna().all(axis=1)
    assert (bulk.obsm["fractions_lower"].isna().any(axis=1) == known).all()


def test_record_survives_files_and_subsets(bulk, ridge, tmp_path):
    with pytest.warns(UserWarning, match="get the fit"):
        tl.predict(bulk, ridge, in_sample=True)
    known = bulk.obsm["measured_fractions"].dropna().index
    bulk.write_h5ad(tmp_path / "bulk.h5ad")
    read = anndata.read_h5ad(tmp_path / "bulk.h5ad")
    for adata in (read, read[known[:3]], read[known[:3]].copy()):
        with pytest.warns(UserWarning, match=f"{min(len(known), adata.n_obs)} of .* samples have the fit"):
            tl.evaluate(adata)
    tl.convert_fractions(read, dict.fromkeys(read.obsm["fractions"], 2.0), to="rna")
    assert set(training_samples(read, "rna_fractions", read.obs_names, "in_sample")) == set(known)


def test_other_samples_of_a_subset_are_not_named(bulk, ridge):
    with pytest.warns(UserWarning, match="get the fit"):
        tl.predict(bulk, ridge, in_sample=True)
    new = bulk[bulk.obsm["measured_fractions"].isna().any(axis=1)].copy()
    new.obsm["flow"] = new.obsm["fractions"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.evaluate(new, measured_key="flow")


def test_estimates_without_record_have_no_training_samples():
    adata = AnnData(obs=pd.DataFrame(index=["a", "b"]))
    assert training_samples(adata, "fractions", adata.obs_names, "in_sample") == []


def test_cross_validation_does_not_replace_predictions(pairs, ridge):
    """With leakage, a held-out sample may be a training sample: its fit shows the leak."""
    fit = ridge.predict(pairs["bulk"], in_sample=True)
    pd.testing.assert_frame_equal(predict_unseen(ridge, pairs, pairs["bulk"]), fit)
    assert not np.allclose(fit, ridge.predict(pairs["bulk"]))
