"""Whether a sample is like those of training: limits that held-out donors set, and the warning of tl.predict."""

from __future__ import annotations

import warnings
from contextlib import redirect_stdout
from io import StringIO

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import datasets, pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv._stats.familiarity import LEAST_SPREAD, MARGIN, Familiarity
from scdeconv.models import SimpleDNN

QUICK = {"max_epochs": 2, "hidden": (4,), "n_members": 2, "simulate": 50}


def trained(mdata, method="simplednn", **arguments):
    with redirect_stdout(StringIO()):
        return tl.train(mdata, method, **arguments)


@pytest.fixture(scope="module")
def learned():
    """The pairs, bulk of 20 donors that nothing was learned from, the calibration and a network trained on the pairs."""
    cells, bulk = datasets.paired_cohort(
        n_donors=10, n_bulk_only=20, n_genes=300, n_cell_types=4, cells_per_donor=(50, 100)
    )
    with redirect_stdout(StringIO()):
        mdata = pp.pair(cells, bulk)
    new = bulk[~bulk.obs["donor"].isin(pp.paired_donors(mdata)).to_numpy()]
    return mdata, new, pp.calibrate(mdata), trained(mdata, **QUICK)


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
    """Nothing but mast cells, which are about 1 % in training, drawn from the calibration."""
    mdata, _, calibration, _ = learned
    counts = calibration.draw_bulk(np.array([[0.01, 0.01, 0.01, 0.97]]), np.random.default_rng(1))
    return AnnData(counts, obs=pd.DataFrame(index=["strange0"]), var=mdata["bulk"].var[[]].copy())


# the rule


def distance_by_loops(sample, others):
    """Standard deviations, on the angular scale, of the most unusual type."""
    angles = [[np.arcsin(np.sqrt(value)) for value in row] for row in others]
    columns = list(zip(*angles, strict=True))
    return max(
        abs(np.arcsin(np.sqrt(sample[k])) - np.mean(columns[k])) / (np.std(columns[k], ddof=1) + LEAST_SPREAD)
        for k in range(len(sample))
    )


def test_limits_and_distances_equal_the_rule_written_out():
    rng = np.random.default_rng(0)
    fractions, noise = rng.dirichlet([4, 2, 1], 9), rng.uniform(0.8, 1.3, 9)
    found = Familiarity.from_held_out(noise, fractions, np.arange(len(fractions)))
    held_out = [distance_by_loops(fractions[i], fractions[np.arange(9) != i]) for i in range(9)]
    np.testing.assert_allclose(found.limits, [1.25 * max(noise), 1.25 * max(held_out)])
    assert MARGIN == 1.25
    new = pd.DataFrame(np.vstack([rng.dirichlet([4, 2, 1], 5), [[0, 0, 1]]]), index=list("abcdef"), columns=list("xyz"))
    new_noise = np.array([1.0, 1.0, 1.7, 1.0, 1.0, 1.0])
    table = found.quality(new_noise, new)
    assert list(table.columns) == ["noise", "composition", "outside"]
    np.testing.assert_array_equal(table["noise"], new_noise)
    np.testing.assert_allclose(table["composition"], [distance_by_loops(row, fractions) for row in new.to_numpy()])
    expected = (new_noise > 1.25 * max(noise)) | (table["composition"] > 1.25 * max(held_out))
    assert table["outside"].tolist() == expected.tolist()
    assert table["outside"][["c", "f"]].all()
    assert list(table.index) == list(new.index)


def test_type_that_never_varies_does_not_make_everything_strange():
    fractions = np.column_stack([np.linspace(0.4, 0.6, 8), np.linspace(0.6, 0.4, 8), np.zeros(8)])
    familiarity = Familiarity.from_held_out(np.ones(8), fractions, np.arange(8))
    assert np.isfinite(familiarity.limits).all()
    table = familiarity.quality(np.ones(1), pd.DataFrame([[0.5, 0.4999, 0.0001]]))
    assert not table["outside"].any()


def test_limits_are_those_of_donors_and_not_of_their_repeated_samples(pairs):
    """More samples of the most unusual donor must not make that donor look usual to itself."""
    bulk = pairs["bulk"]
    truth = bulk.obsm["measured_fractions"].dropna().to_numpy()
    held_out = [distance_by_loops(row, np.delete(truth, i, axis=0)) for i, row in enumerate(truth)]
    unusual = np.flatnonzero(bulk.obsm["measured_fractions"].notna().all(axis=1))[np.argmax(held_out)]
    rows = np.r_[np.arange(bulk.n_obs), [unusual] * 3]
    names = pd.Index([*bulk.obs_names, "again1", "again2", "again3"])
    more = AnnData(bulk.X[rows].copy(), obs=bulk.obs.iloc[rows].set_index(names), var=bulk.var)
    more.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].iloc[rows].set_index(names)
    repeated = make_mudata({**pairs.mod, "bulk": more})
    once, often = (trained(mdata, **{**QUICK, "max_epochs": 0}).familiarity_ for mdata in (pairs, repeated))
    assert once.limits[1] == pytest.approx(MARGIN * max(held_out))
    assert often.limits[1] == pytest.approx(once.limits[1])


def test_limits_of_a_network_are_learned_from_the_paired_donors(model, measured):
    np.testing.assert_allclose(
        model.familiarity_.limits[1],
        MARGIN * max(distance_by_loops(measured[i], np.delete(measured, i, axis=0)) for i in range(len(measured))),
    )


# samples


def test_composition_far_from_training_is_outside(model, strange):
    quality = model.quality(strange)
    assert quality["outside"].all()
    assert (quality["composition"] > model.familiarity_.limits[1]).all()


def test_samples_like_those_of_training_are_not_outside(model, usual, learned):
    assert len(usual) == 20
    assert not model.quality(usual)["outside"].any()
    training = learned[0]["bulk"]
    assert not model.quality(training)["outside"].any()


def test_noise_of_samples_from_the_calibration_is_about_one(model, learned, measured):
    mdata, _, calibration, _ = learned
    drawn = AnnData(calibration.draw_bulk(measured, np.random.default_rng(1)), var=mdata["bulk"].var[[]].copy())
    assert model.quality(drawn)["noise"].median() == pytest.approx(1, abs=0.2)
    assert (model.quality(drawn)["composition"] < model.familiarity_.limits[1]).all()


def test_bulk_that_no_composition_explains_is_outside_by_its_noise(model, usual):
    usual.X = np.random.default_rng(0).permuted(usual.X, axis=1)  # genes are mixed up
    quality = model.quality(usual)
    assert (quality["noise"] > model.familiarity_.limits[0]).all()
    assert quality["outside"].all()


def test_quality_is_of_each_sample_alone(model, usual, strange):
    both = anndata.concat([usual, strange])
    expected = pd.concat([model.quality(usual), model.quality(strange)])
    pd.testing.assert_frame_equal(model.quality(both), expected, rtol=1e-4)


def test_quality_reads_the_layer(model, usual):
    expected = model.quality(usual)
    usual.layers["counts"], usual.X = usual.X, np.ones_like(usual.X)
    pd.testing.assert_frame_equal(model.quality(usual, layer="counts"), expected)


# tl.predict


def test_predict_writes_the_quality_and_nothing_undocumented(model, usual, unchanged):
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


def test_predict_warns_by_name_of_samples_outside(model, usual, strange):
    both = anndata.concat([usual, strange])
    message = r"^1 of 21 samples lie outside of what the model was trained on, such as .*strange0.*: .*extrapolated.*"
    with pytest.warns(UserWarning, match=message + r"obsm\['fractions_quality'\]") as caught:
        tl.predict(both, model)
    (warning,) = caught
    assert "usual" not in str(warning.message)
    assert warning.filename == __file__
    assert both.obs_names[both.obsm["fractions_quality"]["outside"]].tolist() == ["strange0"]


def test_quality_survives_saving_the_model(model, usual, strange, tmp_path):
    model.save(tmp_path / "model")
    loaded = SimpleDNN.load(tmp_path / "model")
    for adata in (usual, strange):
        pd.testing.assert_frame_equal(loaded.quality(adata), model.quality(adata))
    with pytest.warns(UserWarning, match="strange0"):
        tl.predict(strange, loaded)


def test_quality_survives_the_h5ad_round_trip(model, usual, tmp_path):
    tl.predict(usual, model)
    usual.write_h5ad(tmp_path / "bulk.h5ad")
    read = anndata.read_h5ad(tmp_path / "bulk.h5ad")
    pd.testing.assert_frame_equal(read.obsm["fractions_quality"], usual.obsm["fractions_quality"], check_names=False)


@pytest.mark.parametrize(("method", "arguments"), [("nnls", {}), ("simplednn", {**QUICK, "simulate": None})])
def test_models_without_a_calibration_write_no_quality(pairs, strange, method, arguments, tmp_path):
    found = trained(pairs, method, **arguments)
    assert found.quality(strange) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tl.predict(strange, found)
    assert set(strange.obsm) == {"fractions"}
    found.save(tmp_path / "model")
    assert type(found).load(tmp_path / "model").quality(strange) is None
