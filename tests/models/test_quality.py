"""Quality of new samples by the models with a calibration, and the warning of tl.predict."""

from __future__ import annotations

import warnings
from contextlib import redirect_stdout
from io import StringIO

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from familiarity_loops import distance_by_loops

from scdeconv import datasets, pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv._stats.recognition.familiarity import MARGIN

QUICK = {"max_epochs": 2, "hidden": (4,), "n_members": 2}


def trained(mdata, method="calibrated_map", **arguments):
    with redirect_stdout(StringIO()):
        return tl.train(mdata, method, **arguments)


METHODS = [("calibrated_map", {}), ("residual_dnn", {**QUICK, "simulate": 50})]


@pytest.fixture(scope="module", params=METHODS, ids=[name for name, _ in METHODS])
def learned(request):
    """The pairs, bulk of 20 unseen donors, the calibration and a model trained on the pairs."""
    cells, bulk = datasets.paired_cohort(
        n_donors=10, n_bulk_only=20, n_genes=300, n_cell_types=4, cells_per_donor=(50, 100)
    )
    with redirect_stdout(StringIO()):
        mdata = pp.pair(cells, bulk)
    new = bulk[~bulk.obs["donor"].isin(pp.paired_donors(mdata)).to_numpy()]
    return mdata, new, pp.calibrate(mdata), trained(mdata, request.param[0], **request.param[1])


@pytest.fixture
def model(learned):
    return learned[3]


@pytest.fixture
def measured(learned):
    return learned[0]["bulk"].obsm["measured_fractions"].dropna().to_numpy()


@pytest.fixture
def usual(learned):
    """Bulk of new donors of the same kind."""
    new = learned[1]
    names = [f"usual{i}" for i in range(new.n_obs)]
    return AnnData(new.X.copy(), obs=pd.DataFrame(index=names), var=new.var[[]].copy())


@pytest.fixture
def strange(learned):
    """Samples of mast cells only (about 1 % in training), drawn from the calibration."""
    mdata, _, calibration, _ = learned
    counts = calibration.draw_bulk(np.array([[0.01, 0.01, 0.01, 0.97]]), np.random.default_rng(1))
    return AnnData(counts, obs=pd.DataFrame(index=["strange0"]), var=mdata["bulk"].var[[]].copy())


def test_repeated_samples_do_not_change_the_limits(pairs):
    """Repeated samples of the most unusual donor must not change its own limits."""
    bulk = pairs["bulk"]
    truth = bulk.obsm["measured_fractions"].dropna().to_numpy()
    held_out = [distance_by_loops(row, np.delete(truth, i, axis=0)) for i, row in enumerate(truth)]
    unusual = np.flatnonzero(bulk.obsm["measured_fractions"].notna().all(axis=1))[np.argmax(held_out)]
    rows = np.r_[np.arange(bulk.n_obs), [unusual] * 3]
    names = pd.Index([*bulk.obs_names, "again1", "again2", "again3"])
    more = AnnData(bulk.X[rows].copy(), obs=bulk.obs.iloc[rows].set_index(names), var=bulk.var)
    more.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].iloc[rows].set_index(names)
    repeated = make_mudata({**pairs.mod, "bulk": more})
    once, often = (trained(mdata).familiarity_ for mdata in (pairs, repeated))
    assert once.limits[1] == pytest.approx(MARGIN * max(held_out))
    assert often.limits[1] == pytest.approx(once.limits[1])


def test_limits_are_learned_from_paired_donors(model, measured):
    distances = [distance_by_loops(row, np.delete(measured, i, axis=0)) for i, row in enumerate(measured)]
    np.testing.assert_allclose(model.familiarity_.limits[1], MARGIN * max(distances))


def test_composition_far_from_training_is_outside(model, strange):
    quality = model.quality(strange)
    assert quality["outside"].all()
    assert (quality["composition"] > model.familiarity_.limits[1]).all()


def test_samples_like_those_of_training_are_not_outside(model, usual, learned):
    assert len(usual) == 20
    assert not model.quality(usual)["outside"].any()
    training = learned[0]["bulk"]
    assert not model.quality(training)["outside"].any()


def test_noise_of_calibrated_samples_is_about_one(model, learned, measured):
    mdata, _, calibration, _ = learned
    drawn = AnnData(calibration.draw_bulk(measured, np.random.default_rng(1)), var=mdata["bulk"].var[[]].copy())
    assert model.quality(drawn)["noise"].median() == pytest.approx(1, abs=0.2)
    assert (model.quality(drawn)["composition"] < model.familiarity_.limits[1]).all()


def test_unexplained_bulk_is_outside_by_noise(model, usual):
    usual.X = np.random.default_rng(0).permuted(usual.X, axis=1)  # genes are permuted
    quality = model.quality(usual)
    assert (quality["noise"] > model.familiarity_.limits[0]).all()
    assert quality["outside"].all()


def test_quality_does_not_depend_on_the_batch(model, usual, strange):
    both = anndata.concat([usual, strange])
    expected = pd.concat([model.quality(usual), model.quality(strange)])
    pd.testing.assert_frame_equal(model.quality(both), expected, rtol=1e-4)


def test_quality_reads_the_layer(model, usual):
    expected = model.quality(usual)
    usual.layers["counts"], usual.X = usual.X, np.ones_like(usual.X)
    pd.testing.assert_frame_equal(model.quality(usual, layer="counts"), expected)


def test_predict_writes_only_documented_quality_columns(model, usual, unchanged):
    usual.obsm["other"] = np.ones((usual.n_obs, 2))
    with unchanged(usual):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tl.predict(usual, model, key_added="mine")
        assert set(usual.obsm) == {"other", "mine", "mine_quality"}
        pd.testing.assert_frame_equal(usual.obsm["mine_quality"], model.quality(usual))
        assert set(usual.uns["scdeconv"]) == {"mine"}
        assert "coverage" not in usual.uns["scdeconv"]["mine"]
        del usual.obsm["mine"], usual.obsm["mine_quality"], usual.uns["scdeconv"]


def test_predict_names_samples_outside_in_a_warning(model, usual, strange):
    both = anndata.concat([usual, strange])
    message = r"^1 of 21 samples are outside the range of the training donors, such as .*strange0.*extrapolated.*"
    with pytest.warns(UserWarning, match=message + r"obsm\['fractions_quality'\]") as caught:
        tl.predict(both, model)
    (warning,) = caught
    assert "usual" not in str(warning.message)
    assert warning.filename == __file__
    assert both.obs_names[both.obsm["fractions_quality"]["outside"]].tolist() == ["strange0"]


def test_quality_survives_saving_the_model(model, usual, strange, tmp_path):
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    for adata in (usual, strange):
        pd.testing.assert_frame_equal(loaded.quality(adata), model.quality(adata))
    with pytest.warns(UserWarning, match="strange0"):
        tl.predict(strange, loaded)


def test_quality_survives_the_h5ad_round_trip(model, usual, tmp_path):
    tl.predict(usual, model)
    usual.write_h5ad(tmp_path / "bulk.h5ad")
    read = anndata.read_h5ad(tmp_path / "bulk.h5ad")
    pd.testing.assert_frame_equal(read.obsm["fractions_quality"], usual.obsm["fractions_quality"], check_names=False)


@pytest.mark.parametrize(("method", "arguments"), [("nnls", {}), ("simplednn", QUICK)])
def test_models_without_a_calibration_flag_only_reads(pairs, strange, method, arguments, tmp_path):
    found = trained(pairs, method, **arguments)
    assert list(found.quality(strange)) == ["few_reads"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.predict(strange, found)
    assert set(strange.obsm) == {"fractions", "fractions_quality"}
    found.save(tmp_path / "model")
    assert not type(found).load(tmp_path / "model").quality(strange)["few_reads"].any()
