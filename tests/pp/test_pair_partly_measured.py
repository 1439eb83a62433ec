"""pp.pair and training with NaN for single cell types."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from scdeconv import datasets, metrics, pp, tl

pytestmark = pytest.mark.filterwarnings("ignore:Expected an out-of-fold RMSE below")


@pytest.fixture(scope="module")
def generated():
    """Profiles, and bulk of 36 donors with true fractions."""
    cells, bulk = datasets.paired_cohort(
        n_donors=30, n_bulk_only=6, n_genes=300, n_cell_types=5, cells_per_donor=(60, 80), seed=2
    )
    bulk.obsm["measured_fractions"] = bulk.obsm["true_fractions"].copy()
    return pp.pair(cells, bulk)["profiles"], bulk


@pytest.fixture
def lacking(generated):
    """Bulk of which two thirds lack the second and third type, and the mask of these samples."""
    bulk = generated[1].copy()
    rows = np.arange(bulk.n_obs) % 3 > 0
    bulk.obsm["measured_fractions"].iloc[rows, 1:3] = np.nan
    return bulk, rows


def test_given_values_are_kept(generated, lacking, unchanged, capsys):
    bulk, rows = lacking
    with unchanged(bulk):
        mdata = pp.pair(bulk=bulk, profiles=generated[0])
    measured = mdata["bulk"].obsm["measured_fractions"]
    np.testing.assert_allclose(measured, bulk.obsm["measured_fractions"])
    assert len(pp.paired_donors(mdata)) == bulk.obs["donor"].nunique()
    assert f"{rows.sum()} samples in bulk.obsm['measured_fractions'] lack 2 to 2 types" in capsys.readouterr().out


def test_held_out_donors_do_not_complete_others(generated, lacking):
    bulk, rows = lacking
    mdata = pp.pair(bulk=bulk, profiles=generated[0])
    from scdeconv.models import PairedData

    data = PairedData(mdata, mdata["bulk"].var_names)
    whole = bulk.obs["donor"][~rows].tolist()
    fractions = data.pairs(without=whole[1:]).fractions
    only = bulk.obsm["measured_fractions"][~rows].iloc[0]
    ratio = fractions[:, 1] / fractions[:, 2]
    np.testing.assert_allclose(ratio, only.iloc[1] / only.iloc[2], rtol=1e-6)


@pytest.mark.parametrize("method", ["ridge", "calibrated_map", "simplednn", "ensemble"])
def test_every_kind_of_method_trains(generated, lacking, method):
    arguments = {"max_epochs": 2, "hidden": (4,), "n_members": 2} if method == "simplednn" else {}
    mdata = pp.pair(bulk=lacking[0], profiles=generated[0])
    model = tl.train(mdata, method, **arguments)
    predicted = model.predict(lacking[0])
    np.testing.assert_allclose(predicted.sum(axis=1), 1)
    assert (predicted.iloc[:, 1:3].mean() > 0.02).all()


@pytest.mark.parametrize("method", ["ridge", "calibrated_map"])
def test_lacking_types_are_not_zero(generated, method):
    """New donors: better than without the partly measured samples, and than with zeros."""
    profiles, whole = generated
    new, old = whole[:12].copy(), whole[12:].copy()
    rows = np.arange(old.n_obs) % 3 > 0
    errors = {}
    for name, value in {"nan": np.nan, "zero": 0.0, "none": None}.items():
        bulk = old.copy()
        table = bulk.obsm["measured_fractions"]
        table.iloc[rows, slice(1, 3) if value is not None else slice(None)] = np.nan if value is None else value
        bulk.obsm["measured_fractions"] = table.div(table.sum(axis=1), axis=0) if name == "zero" else table
        model = tl.train(pp.pair(bulk=bulk, profiles=profiles), method)
        errors[name] = metrics.rmse(new.obsm["true_fractions"], model.predict(new))
    assert errors["nan"] < 0.9 * errors["zero"]
    # with profiles, a few complete samples are as good: see docs/benchmarks/known_fractions
    assert errors["nan"] < (1.3 if method == "calibrated_map" else 1) * errors["none"]


def test_type_of_no_sample_is_learned_from_profiles(generated):
    profiles, whole = generated
    bulk = whole.copy()
    bulk.obsm["measured_fractions"].iloc[:, 1:3] = np.nan
    mdata = pp.pair(bulk=bulk, profiles=profiles)
    model = tl.train(mdata, "calibrated_map")
    predicted = model.predict(bulk, in_sample=True).mean()
    true = whole.obsm["true_fractions"].mean()
    assert (predicted / true).iloc[1:3].between(0.4, 2.5).all()
    table = tl.benchmark(mdata, ["calibrated_map"], cv=3)
    assert set(table["cell_type"]) == {*true.index[[0, 3, 4]], "all entries", "mean of types"}


def test_type_of_no_sample_without_reference_is_refused(generated):
    bulk = generated[1].copy()
    bulk.obsm["measured_fractions"].iloc[:, 1] = np.nan
    with pytest.raises(ValueError, match="measured fractions of each type in some samples"):
        pp.pair(bulk=bulk)


def test_shares_of_a_panel_are_scaled(generated, lacking):
    bulk, rows = lacking
    table = bulk.obsm["measured_fractions"]
    bulk.obsm["measured_fractions"] = table.div(table.sum(axis=1), axis=0)
    mdata = pp.pair(bulk=bulk)
    from scdeconv.models import PairedData

    fractions = PairedData(mdata, mdata["bulk"].var_names).pairs().fractions
    np.testing.assert_allclose(fractions.sum(axis=1), 1)
    means = fractions[:, 1:3].sum(axis=1)
    np.testing.assert_allclose(means[rows], means[~rows].mean(), rtol=0.05)


def test_benchmark_scores_samples_with_all_types(generated, lacking):
    mdata = pp.pair(bulk=lacking[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = tl.benchmark(mdata, ["ridge"], cv=3)
    counts = table.loc[table["cell_type"] == "all entries", "n"]
    assert set(counts) == {5 * int((~lacking[1]).sum())}


def test_samples_that_all_lack_something_are_refused(generated):
    bulk = generated[1].copy()
    rows = np.arange(bulk.n_obs) % 2 == 0
    bulk.obsm["measured_fractions"].iloc[rows, 1] = np.nan
    bulk.obsm["measured_fractions"].iloc[~rows, 2] = np.nan
    mdata = pp.pair(bulk=bulk)
    assert tl.cross_validate(mdata, "ridge", cv=3).shape == (bulk.n_obs, 5)
    with pytest.raises(ValueError, match="lacks some of them"):
        tl.benchmark(mdata, ["ridge"], cv=3)


def test_unmeasured_rest_of_other_samples_is_kept(generated, lacking):
    bulk, rows = lacking
    bulk.obsm["measured_fractions"].iloc[~rows] *= 0.9
    measured = pp.pair(bulk=bulk)["bulk"].obsm["measured_fractions"]
    np.testing.assert_allclose(measured.loc[~rows, "Unmeasured"], 0.1)
    assert measured.loc[rows, "Unmeasured"].isna().all()
