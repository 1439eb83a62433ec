from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scdeconv import pp


@pytest.fixture
def planted_inputs(inputs):
    """The gene G30 is expressed only in cells of D2, and the bulk of D2 is recognisable."""
    cells, bulk = inputs
    counts = cells.X.toarray()
    counts[:, 30] = 0
    counts[(cells.obs["donor"] == "D2").to_numpy(), 30] = 50
    cells.X = sp.csr_matrix(counts)
    bulk.X[(bulk.obs["donor"] == "D2").to_numpy()] = 7_777_777
    return cells, bulk


def without(inputs, donors):
    """Return the inputs without the donors."""
    return tuple(adata[~adata.obs["donor"].isin(donors)].copy() for adata in inputs)


def prepared(inputs):
    mdata = pp.pair(*inputs)
    pp.simulate(mdata, 30, cells_per_sample=20, sparse_share=0.3, seed=5)
    pp.select_genes(mdata, 9, criterion="variance")
    return mdata


def test_nothing_of_the_donor_remains(planted_inputs):
    mdata = prepared(planted_inputs)
    for name in ("sc", "sums", "profiles", "pseudobulk", "simulated"):
        assert mdata[name].X[:, 30].sum() > 0
    train, held_out = pp.hold_out(mdata, ["D2"])
    assert set(train.mod) == {"bulk", "sc", "sums", "profiles", "pseudobulk", "simulated"}
    for name, adata in train.mod.items():
        if name != "bulk":
            assert adata.X[:, 30].sum() == 0
        assert not (adata.X == 7_777_777).sum()
        assert "D2" not in set(adata.obs.get("donor", []))
        assert not adata.obs_names.isin(planted_inputs[1].obs_names[planted_inputs[1].obs["donor"] == "D2"]).any()
    assert held_out.obs["donor"].tolist() == ["D2"]
    assert (held_out.X == 7_777_777).all()


@pytest.mark.parametrize("donors", [["D2"], ["B1"], ["D3", "B2"]])
def test_remaining_data_equal_a_study_without_the_donors(planted_inputs, donors, assert_same):
    train, _ = pp.hold_out(prepared(planted_inputs), donors)
    assert_same(train, prepared(without(planted_inputs, donors)))


@pytest.mark.parametrize("criterion", ["markers", "variance", "agreement"])
def test_selection_and_simulation_exclude_the_donor(make_inputs, criterion, assert_same):
    results = []
    for factor in (1, 1000):
        cells, bulk = make_inputs(bulk_donors=("D1", "D2", "D3", "D4", "B1"))
        counts = cells.X.toarray()
        counts[(cells.obs["donor"] == "D2").to_numpy(), :20] *= factor
        cells.X = sp.csr_matrix(counts)
        bulk.X[1, 20:] *= factor
        mdata = pp.pair(cells, bulk)
        pp.select_genes(mdata, 6, criterion=criterion)
        pp.simulate(mdata, 10, across_donors=True)
        results.append((mdata, pp.hold_out(mdata, ["D2"])[0]))
    (before, train), (changed, again) = results
    assert_same(train, again)
    assert not before["bulk"].var["selected"].equals(changed["bulk"].var["selected"])


def test_recorded_steps_are_repeated_with_their_arguments(mdata):
    arguments = {"n_samples": 14, "cells_per_sample": 33, "sparse_share": 0.25, "across_donors": True}
    pp.simulate(mdata, **arguments, exact_labels=True, seed=8)
    pp.select_genes(mdata, 11, criterion="agreement")
    pp.augment(mdata, 6, 0.5, seed=3)
    train, _ = pp.hold_out(mdata, ["D4"])
    assert train.uns["scdeconv"] == mdata.uns["scdeconv"]
    assert train["simulated"].n_obs == 14
    assert train["bulk"].var["selected"].sum() == 11
    # augmentation uses only the sample's own donor, so the remaining rows are unchanged
    kept = (mdata["bulk"].obs["donor"] != "D4").to_numpy()
    np.testing.assert_array_equal(
        train["bulk"].obsm["augmented_fractions"], mdata["bulk"].obsm["augmented_fractions"][kept]
    )


def test_hold_out_adds_no_new_steps(mdata):
    train, held_out = pp.hold_out(mdata, ["D4"])
    assert "simulated" not in train.mod
    assert "selected" not in train["bulk"].var
    assert set(train.uns["scdeconv"]) == {"pair"}
    assert "selected" not in held_out.var


def test_given_gene_list_is_kept(mdata):
    mdata["bulk"].var["selected"] = mdata["bulk"].var_names.isin(mdata["bulk"].var_names[:5])
    train, _ = pp.hold_out(mdata, ["D4"])
    assert list(train["bulk"].var["selected"]) == list(mdata["bulk"].var["selected"])


def test_estimates_and_records_are_removed(mdata):
    bulk = mdata["bulk"]
    bulk.obsm["fractions"] = bulk.obsm["measured_fractions"].fillna(0)
    bulk.obsm["X_pca"] = np.ones((bulk.n_obs, 2))
    bulk.uns["scdeconv"] = {"fractions": {"method": "ridge"}}
    mdata.uns["scdeconv"]["expression"] = {"method": "bayesprism"}
    train, held_out = pp.hold_out(mdata, ["D2"])
    for part in (train["bulk"], held_out):
        assert set(part.obsm) == {"measured_fractions", "measured_cells"}
    assert set(train["bulk"].uns["scdeconv"]) == {"values"}
    assert not held_out.uns
    assert set(train.uns["scdeconv"]) == {"pair"}
    assert "fractions" in bulk.obsm


@pytest.mark.parametrize("recorded", [True, False])
def test_calibration_is_learned_again(mdata, recorded):
    calibration = pp.calibrate(mdata)
    pp.simulate(mdata, 20, calibration=calibration)
    if not recorded:
        # the calibration of another object, passed to pp.simulate
        del mdata.uns["scdeconv"]["calibrate"]
    train, _ = pp.hold_out(mdata, ["D2"])
    found = train.uns["scdeconv"]["calibration"]
    expected = pp.calibrate(train)
    np.testing.assert_array_equal(found["centre"], expected.centre)
    assert found["n_donors"] == calibration.n_donors - 1
    assert not np.allclose(found["centre"], calibration.centre)


def test_all_samples_of_the_donor_are_removed(make_inputs):
    cells, bulk = make_inputs(bulk_donors=("D1", "D2", "D1", "D3", "D4", "D1"))
    mdata = pp.pair(cells, bulk)
    train, held_out = pp.hold_out(mdata, ["D1"])
    assert list(held_out.obs_names) == ["bulk0", "bulk2", "bulk5"]
    assert list(train["bulk"].obs_names) == ["bulk1", "bulk3", "bulk4"]
    measured = mdata["bulk"].obsm["measured_fractions"]
    pd.testing.assert_frame_equal(held_out.obsm["measured_fractions"], measured.loc[held_out.obs_names])
    pd.testing.assert_frame_equal(train["bulk"].obsm["measured_fractions"], measured.loc[train["bulk"].obs_names])
    np.testing.assert_array_equal(held_out.X, bulk[held_out.obs_names].X)


def test_original_and_result_share_no_memory(planted_inputs, assert_same):
    mdata = prepared(planted_inputs)
    before = {name: adata.copy() for name, adata in mdata.mod.items()}
    train, held_out = pp.hold_out(mdata, ["D2"])
    for adata in (held_out, *train.mod.values()):
        (adata.X.data if sp.issparse(adata.X) else adata.X)[:] = 0
        adata.obs["donor"] = "nobody"
    train["bulk"].obsm["measured_fractions"].iloc[:] = 0
    train.uns["scdeconv"]["simulate"]["seed"] = 99
    for name, copy in before.items():
        assert_same(mdata[name], copy)
    assert mdata.uns["scdeconv"]["simulate"]["seed"] == 5


def test_types_of_the_donor_only_stay_empty(make_inputs):
    cells, bulk = make_inputs()
    others = (cells.obs["donor"] != "D3").to_numpy()
    cells = cells[~(others & (cells.obs["cell_type"] == "NK cell").to_numpy())].copy()
    mdata = pp.pair(cells, bulk)
    for step in (pp.simulate, pp.select_genes):
        step(mdata, 12)
    with np.errstate(all="raise"):
        train, held_out = pp.hold_out(mdata, ["D3"])
    assert list(train["profiles"].obs_names) == ["B cell", "NK cell", "T cell"]
    assert (train["profiles"]["NK cell"].X == 0).all()
    assert train["profiles"].obs.loc["NK cell", "n_cells"] == 0
    assert train["profiles"].obs.loc["NK cell", "cell_size_umi"] == 0
    assert list(train["bulk"].obsm["measured_fractions"].columns) == list(held_out.obsm["measured_fractions"].columns)
    assert (train["simulated"].obsm["measured_fractions"]["NK cell"] == 0).all()
    assert train["bulk"].var["selected"].sum() == 12
    again, _ = pp.hold_out(train, ["D2"])
    assert list(again["profiles"].obs_names) == ["B cell", "NK cell", "T cell"]


def test_profiles_are_kept_and_pseudobulk_is_dropped(reference_inputs, assert_same):
    mdata = pp.pair(**reference_inputs)
    pp.simulate(mdata, 10)
    train, held_out = pp.hold_out(mdata, ["D1", "D5"])
    assert_same(train["profiles"], mdata["profiles"])
    assert train["pseudobulk"].obs["donor"].tolist() == ["D4", "D3", "D2", "D0"]
    assert train["bulk"].obs["donor"].tolist() == ["D0", "D2", "D3", "D4"]
    assert held_out.obs["donor"].tolist() == ["D1", "D5"]
    train["profiles"].X[:] = 0
    assert mdata["profiles"].X.sum() > 0
    del reference_inputs["pseudobulk"]
    assert set(pp.hold_out(pp.pair(**reference_inputs), ["D1"])[0].mod) == {"bulk", "profiles"}


@pytest.mark.parametrize("donors", [["D9", "D1"], ["C1"]])
def test_donors_without_bulk_are_refused(mdata, donors):
    unknown = sorted(set(donors) - set(mdata["bulk"].obs["donor"]))
    with pytest.raises(ValueError, match="Expected donors of the bulk samples in donors, found") as caught:
        pp.hold_out(mdata, donors)
    assert f"found {unknown}. Choose from ['B1', 'B2', 'D1', 'D2', 'D3', 'D4']." in str(caught.value)
