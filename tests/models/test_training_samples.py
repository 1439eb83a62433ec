"""Training samples get out-of-fold predictions from every method that learns from measured fractions."""

from __future__ import annotations

import warnings
from contextlib import redirect_stdout
from io import StringIO

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdeconv import models, pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv._stats.conformal import spread_of
from scdeconv.models import SimpleDNN, load_class, load_model
from scdeconv.models._members import member_folds

# arguments that make training short; a new method is tested with its defaults
QUICK = {
    "simplednn": {"n_members": 2, "hidden": (8,), "max_epochs": 3},
    "residual_dnn": {"n_members": 2, "hidden": (8,), "simulate": 20, "max_epochs": 3},
    "simulation_ridge": {"n_simulated": 50},
}
SCADEN = {"train_on": "pairs", "max_steps": 3}
NAMES = list(tl.methods().index)
PAIRED = [name for name in NAMES if load_class(name).record.learns_from_pairs]


def train(mdata, name, **arguments):
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tl.train(mdata, name, **{**QUICK.get(name, {}), **arguments})


def source(model, adata, **arguments):
    """Return the source of each estimate."""
    found = model.estimate(adata, **arguments).get("source")
    return pd.Series("new", adata.obs_names) if found is None else found["source"]


@pytest.fixture(scope="module")
def mdata(cohort):
    with redirect_stdout(StringIO()):
        paired = pp.pair(*cohort)
    pp.select_genes(paired, 120)
    return paired


@pytest.fixture(scope="module")
def measured(mdata):
    return mdata["bulk"].obsm["measured_fractions"].dropna()


@pytest.fixture(scope="module", params=PAIRED)
def model(request, mdata):
    return train(mdata, request.param)


@pytest.fixture(scope="module")
def ridge(mdata):
    return train(mdata, "ridge")


@pytest.fixture
def bulk(cohort):
    return cohort[1].copy()


def test_methods_of_family_paired_learn_from_pairs():
    table = tl.methods()
    assert set(table.index[table["family"] == "paired"]) | {"simulation_ridge"} == set(PAIRED)


def test_training_samples_get_out_of_fold_predictions(model, bulk, measured):
    predicted = model.predict(bulk).loc[measured.index]
    np.testing.assert_array_equal(predicted, model.held_out_.predicted)
    error = np.sqrt(((predicted.to_numpy() - model.held_out_.measured) ** 2).mean())
    assert error == pytest.approx(model.held_out_.errors()[0])
    assert source(model, bulk).value_counts().to_dict() == {"out-of-fold": 10, "new": 2}


def test_estimate_and_predict_agree(model, bulk):
    pd.testing.assert_frame_equal(model.estimate(bulk)["fractions"], model.predict(bulk), rtol=1e-6)


def test_fit_is_returned_on_request(model, bulk, measured):
    fit = model.predict(bulk, in_sample=True)
    expression = bulk[:, model.genes_].X.astype(float)
    np.testing.assert_allclose(fit, model.state_.fractions(expression), rtol=1e-6)
    assert not np.allclose(fit.loc[measured.index], model.held_out_.predicted, atol=1e-6)
    found = source(model, bulk, in_sample=True)
    assert set(found.index[found == "in-sample"]) == set(measured.index)


def test_new_samples_are_not_changed(model, bulk, measured):
    new = bulk[~bulk.obs_names.isin(measured.index)].copy()
    assert "source" not in model.estimate(new)
    pd.testing.assert_frame_equal(model.predict(new), model.predict(bulk).loc[new.obs_names], rtol=1e-5)
    pd.testing.assert_frame_equal(model.predict(new), model.predict(new, in_sample=True))


def test_saved_model_recognises_training_samples(model, bulk, tmp_path):
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(bulk), model.predict(bulk), check_exact=True)
    pd.testing.assert_series_equal(source(loaded, bulk), source(model, bulk))


def test_bounds_are_from_other_donors(model, bulk, measured):
    lower, upper = model.predict_interval(bulk, 0.8)
    predicted = model.predict(bulk)
    assert ((lower <= predicted + 1e-9) & (predicted <= upper + 1e-9)).all(axis=None)
    held_out = model.held_out_
    name = measured.index[3]
    spread = np.broadcast_to(spread_of(held_out.members), held_out.predicted.shape)
    expected = held_out.without(held_out.donors[3]).intervals(held_out.predicted[[3]], 0.8, spread[[3]])
    np.testing.assert_allclose([lower.loc[name], upper.loc[name]], np.concatenate(expected))


def test_held_out_has_measured_fractions_after_augmentation(mdata, measured, model):
    augmented = make_mudata(dict(mdata.mod))
    augmented.uns["scdeconv"] = dict(mdata.uns["scdeconv"])
    augmented.mod["bulk"] = mdata["bulk"].copy()
    pp.augment(augmented, n_aug=5, aug_ratio=0.5)
    np.testing.assert_allclose(train(augmented, model.method).held_out_.measured, measured)


def test_replicates_of_a_donor_share_its_fold(model, repeated_pairs):
    again = train(repeated_pairs, model.method)
    known = repeated_pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1)
    predicted = again.predict(repeated_pairs["bulk"])[known.to_numpy()]
    np.testing.assert_array_equal(predicted, again.held_out_.predicted)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PAIRED])
def test_other_methods_know_no_training_samples(mdata, bulk, name):
    simulated = make_mudata(dict(mdata.mod))
    pp.simulate(simulated, 30)
    found = train(simulated, name, **({"max_steps": 3} if name == "scaden" else {}))
    assert (source(found, bulk) == "new").all()


# samples that are the same, and samples that are only similar


def with_values(bulk, values):
    changed = bulk.copy()
    changed.X = values
    return changed


RNG = np.random.default_rng(0)
SAME = {
    "TPM": lambda bulk: with_values(bulk, bulk.X / bulk.X.sum(axis=1, keepdims=True) * 1e6),
    "float32": lambda bulk: with_values(bulk, bulk.X.astype(np.float32)),
    "sparse": lambda bulk: with_values(bulk, sp.csr_matrix(bulk.X)),
    "order of genes": lambda bulk: bulk[:, RNG.permutation(bulk.n_vars)].copy(),
    "some genes": lambda bulk: bulk[:, RNG.random(bulk.n_vars) < 0.8].copy(),
    "order of samples": lambda bulk: bulk[RNG.permutation(bulk.n_obs)].copy(),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_changed_tables_are_recognised(ridge, bulk, measured, change):
    found = source(ridge, change(bulk))
    assert set(found.index[found == "out-of-fold"]) == set(measured.index)


@pytest.mark.filterwarnings("ignore:.*genes are not in adata")
def test_genes_of_the_model_are_enough(ridge, bulk, measured):
    found = source(ridge, bulk[:, ridge.genes_].copy())
    assert set(found.index[found == "out-of-fold"]) == set(measured.index)


def test_names_of_samples_do_not_matter(ridge, bulk, measured):
    known = bulk.obs_names.isin(measured.index)
    bulk.obs_names = [f"sample{i}" for i in range(bulk.n_obs)]
    np.testing.assert_array_equal(source(ridge, bulk) == "out-of-fold", known)


def test_layers_and_backed_files_are_recognised(ridge, bulk, tmp_path):
    expected = ridge.predict(bulk)
    bulk.layers["counts"], bulk.X = bulk.X, np.log1p(bulk.X)
    pd.testing.assert_frame_equal(ridge.predict(bulk, layer="counts"), expected, rtol=1e-6)
    stored = with_values(bulk, sp.csr_matrix(bulk.layers["counts"]))
    stored.write_h5ad(tmp_path / "bulk.h5ad")
    backed = anndata.read_h5ad(tmp_path / "bulk.h5ad", backed="r")
    pd.testing.assert_frame_equal(ridge.predict(backed), expected, rtol=1e-6)


SIMILAR = {
    "sequenced again": lambda counts: RNG.poisson(counts),
    "noise of 1 %": lambda counts: counts * RNG.lognormal(0, 0.01, counts.shape),
    "mixture of samples": lambda counts: counts + np.roll(counts, 1, axis=0),
}


@pytest.mark.parametrize("change", SIMILAR.values(), ids=SIMILAR)
def test_similar_samples_are_new(ridge, bulk, change):
    assert (source(ridge, with_values(bulk, change(bulk.X).astype(float))) == "new").all()


def test_copies_of_a_sample_are_all_recognised(ridge, bulk, measured):
    copies = anndata.concat([bulk, bulk[measured.index[:1]].copy()])
    copies.obs_names = [*bulk.obs_names, "copy"]
    predicted = ridge.predict(copies)
    np.testing.assert_array_equal(predicted.loc["copy"], predicted.loc[measured.index[0]])


# models without out-of-fold predictions


@pytest.mark.parametrize(
    ("name", "arguments", "n_fitted"),
    [("ridge", {"held_out": False}, 10), ("scaden", SCADEN, 10), ("simplednn", {"refit": False}, 6)],
)
def test_samples_never_held_out_are_marked(mdata, bulk, name, arguments, n_fitted):
    found = source(train(mdata, name, **arguments), bulk)
    assert (found == "in-sample").sum() == n_fitted
    assert (found != "new").sum() == 10


@pytest.mark.parametrize("n_donors", [2, 3])
@pytest.mark.parametrize("name", ["simplednn", "ridge", "mean_composition"])
def test_few_donors_are_recognised(mdata, bulk, name, n_donors):
    few = make_mudata(dict(mdata.mod))
    few.mod["bulk"] = mdata["bulk"].copy()
    known = few["bulk"].obsm["measured_fractions"].dropna().index
    few["bulk"].obsm["measured_fractions"].loc[known[n_donors:]] = np.nan
    model = load_class(name)
    model.setup_mudata(few)
    model = model(few)
    model.train(**({"max_epochs": 2} if name == "simplednn" else {}))
    found = source(model, bulk)
    assert set(found.index[found != "new"]) == set(known[:n_donors])
    if name == "simplednn":
        assert set(found[known[:n_donors]]) == {"out-of-fold"}


def test_calibrated_simulation_learns_from_the_pairs(mdata, bulk):
    simulated = make_mudata(dict(mdata.mod))
    simulated.mod["bulk"] = mdata["bulk"].copy()
    pp.simulate(simulated, 40, calibration=pp.calibrate(simulated))
    found = source(train(simulated, "scaden", max_steps=3), bulk)
    assert found.value_counts().to_dict() == {"in-sample": 10, "new": 2}


def test_too_high_coverage_gives_nan_and_warns(ridge, bulk, measured):
    coverage = ridge.held_out_.widest_coverage()
    with pytest.warns(UserWarning, match="too few. The bounds of 10 samples are NaN"):
        lower, upper = ridge.predict_interval(bulk, coverage)
    for bound in (lower, upper):
        assert bound.loc[measured.index].isna().all(axis=None)
        assert bound.drop(measured.index).notna().all(axis=None)


# the class interface


@pytest.mark.parametrize("seed", range(5))
def test_two_donors_share_no_fold(seed):
    donors = np.array(["a", "b", "b", "a", "a"])
    for refit in (True, False):
        for held in member_folds(donors, 3, seed, refit=refit):
            assert len(set(donors[held])) == len(set(donors[~held])) == 1


def test_class_interface_recognises_its_samples(cohort, measured):
    replicates = np.repeat(np.arange(2), 3)
    two = cohort[1][measured.index[:2]][replicates].copy()
    two.obs_names = [f"s{i}" for i in range(6)]
    two.X = np.random.default_rng(0).poisson(two.X)
    two.obsm["measured_fractions"] = measured.iloc[replicates].set_axis(two.obs_names)
    SimpleDNN.setup_anndata(two)
    model = SimpleDNN(two, hidden=(8,), n_members=2)
    model.train(max_epochs=2)
    np.testing.assert_array_equal(model.predict(two), model.held_out_.predicted)
    assert set(source(model, two)) == {"out-of-fold"}


def test_damaged_fingerprints_are_refused(ridge, tmp_path, monkeypatch):
    from dataclasses import replace

    samples = ridge.training_.samples
    for wrong in (
        replace(samples, held_out_row=samples.held_out_row + 5),
        replace(samples, held_out_row=samples.held_out_row[:-1]),
        replace(samples, genes=samples.genes[:4]),
    ):
        monkeypatch.setattr(ridge, "training_", replace(ridge.training_, samples=wrong))
        ridge.save(tmp_path / "model", overwrite=True)
        monkeypatch.undo()
        with pytest.raises(ValueError, match="Expected"):
            models.Ridge.load(tmp_path / "model")
