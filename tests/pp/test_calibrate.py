"""Parameters of pp.calibrate, compared with planted ones."""

from __future__ import annotations

import dataclasses
import warnings
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import datasets, pp
from scdeconv._data.modalities import make_mudata, read_mudata, write_mudata
from scdeconv._data.paired_data import PairedData
from scdeconv._data.reference import Reference
from scdeconv._stats.calibration.noise_factors import MAX_FACTORS
from scdeconv._stats.expression import LEVEL
from scdeconv.pp import Calibration, fit_calibration


def quiet_pair(*args, **kwargs):
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pp.pair(*args, **kwargs)


def plant(n_donors, *, n_genes=300, seed=0, tpm=False):
    """Paired data of four profiles mixed with known fractions, each gene shifted and noisy."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(n_genes, 0.8), 4)
    fractions = rng.dirichlet(np.full(4, 2.0), n_donors)
    linear = fractions @ shares * np.exp(rng.normal(0, 0.4, n_genes) + rng.normal(0, 0.1, (n_donors, n_genes)))
    linear /= linear.sum(axis=1, keepdims=True)
    types, genes = [f"T{i}" for i in range(4)], pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    obs = pd.DataFrame({"donor": [f"D{i}" for i in range(n_donors)]}, index=[f"bulk{i}" for i in range(n_donors)])
    obs["run"] = [f"run{i % 2}" for i in range(n_donors)]
    bulk = AnnData(linear * 1e6 if tpm else rng.poisson(3e7 * linear), obs=obs, var=genes)
    bulk.obsm["measured_fractions"] = pd.DataFrame(fractions, index=obs.index, columns=types)
    return quiet_pair(bulk=bulk, profiles=AnnData(1000 * shares, obs=pd.DataFrame(index=types), var=genes))


def repeated(mdata, repeats):
    """The same data with each bulk sample there so many times."""
    bulk = mdata["bulk"]
    rows = np.repeat(np.arange(bulk.n_obs), repeats)
    names = pd.Index([f"sample{i}" for i in range(len(rows))])
    more = AnnData(bulk.X[rows], obs=bulk.obs.iloc[rows].set_index(names), var=bulk.var)
    more.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].iloc[rows].set_index(names)
    return make_mudata({**mdata.mod, "bulk": more})


def assert_same_calibration(first, second, **tolerance):
    assert vars(first).keys() == vars(second).keys()
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, other, check_index_type=False, **tolerance)
        elif name == "batches":
            assert list(value) == list(other)
        else:
            np.testing.assert_allclose(other, value, **tolerance, err_msg=name)


@pytest.fixture(scope="module")
def large_cohort():
    cells, bulk = datasets.paired_cohort(
        n_donors=30, n_bulk_only=0, n_reference_only=0, n_genes=400, n_cell_types=5, cells_per_donor=(100, 200), seed=3
    )
    return quiet_pair(cells, bulk), bulk.uns["cohort"]


def test_thirty_donors_recover_the_platform_shift(large_cohort):
    mdata, planted = large_cohort
    shift = pp.calibrate(mdata).genes["platform_shift"]
    # the mean over types is a shift of the gene
    truth = planted["platform_shift"] + planted["platform_shift_of_type"].mean(axis=0)
    assert np.corrcoef(shift, truth)[0, 1] > 0.95


@pytest.mark.parametrize("n_donors", [0, 1, 2])
def test_fewer_than_three_pairs_use_the_reference(n_donors):
    mdata = plant(6)
    bulk = mdata["bulk"]
    bulk.obsm["measured_fractions"].iloc[n_donors:] = np.nan
    calibration = pp.calibrate(mdata)
    assert calibration.n_donors == 0
    assert not calibration.genes["platform_shift"].any()
    assert (calibration.genes["shift_sd"] > 0.5).all()
    assert (calibration.cell_types["cell_size"] == calibration.cell_types["cell_size_umi"]).all()
    given, _ = Reference(mdata, bulk.var_names).profiles()
    np.testing.assert_allclose(calibration.profiles, given)
    shares = given.mean(axis=0) / given.sum() * len(given)
    np.testing.assert_allclose(calibration.centre, np.log(1 + LEVEL * 300 * shares))
    # depths need no fractions
    np.testing.assert_allclose(calibration.depths, bulk.X.sum(axis=1))
    assert np.linalg.matrix_rank(calibration.covariance) == 3
    assert calibration.loadings.shape == (0, 300)


def test_many_samples_of_two_donors_are_two_pairs():
    mdata = plant(2)
    assert pp.calibrate(repeated(mdata, [5, 5])).n_donors == 0


@pytest.mark.parametrize("batch_key", [None, "run"])
@pytest.mark.parametrize("repeats", [[5] * 10, [8] + [1] * 9, [1, 2, 3, 4, 5] * 2], ids=str)
def test_copies_of_a_sample_do_not_matter(repeats, batch_key):
    mdata = plant(10)
    once, often = (pp.calibrate(data, batch_key=batch_key) for data in (mdata, repeated(mdata, repeats)))
    assert often.n_donors == once.n_donors == 10
    # depths belong to samples of any donor
    np.testing.assert_allclose(often.depths, np.repeat(once.depths, repeats))
    assert_same_calibration(dataclasses.replace(often, depths=once.depths), once, rtol=1e-7, atol=1e-10)


def test_donor_in_two_batches_has_two_rows():
    mdata = repeated(plant(10), 4)
    mdata["bulk"].obs["run"] = ["run0", "run0", "run1", "run1"] * 10
    calibration = pp.calibrate(mdata, batch_key="run")
    assert calibration.n_donors == 10
    assert len(calibration.loadings) == 20
    # the same samples in both batches: no shift between them
    np.testing.assert_allclose(calibration.batch_shift, 0, atol=1e-12)


def test_batches_of_the_cohort_are_estimated_separately(large_cohort):
    mdata, planted = large_cohort
    learned = pp.calibrate(mdata, batch_key="batch").batch_shift
    difference = (learned["batch2"] - learned["batch1"]).to_numpy()
    assert np.corrcoef(difference, planted["batch_shift"][1] - planted["batch_shift"][0])[0, 1] > 0.7


def test_number_of_factors_is_limited():
    few, many = (pp.calibrate(plant(n_donors)) for n_donors in (MAX_FACTORS, MAX_FACTORS + 10))
    assert len(few.loadings) == len(many.loadings) == MAX_FACTORS
    assert many.n_donors == MAX_FACTORS + 10


def test_missing_batch_column_is_named(pairs):
    with pytest.raises(KeyError, match=r"Expected column 'lane' in mdata\['bulk'\].obs, found \[.*'donor'"):
        pp.calibrate(pairs, batch_key="lane")
    assert "calibration" not in pairs.uns["scdeconv"]


def test_counts_have_depths_and_tpm_have_none():
    counts, tpm = (pp.calibrate(plant(8, tpm=is_tpm)) for is_tpm in (False, True))
    np.testing.assert_allclose(counts.depths, 3e7, rtol=0.01)
    assert len(tpm.depths) == 0
    fractions = np.full((200, 4), 0.25)
    drawn = counts.draw_bulk(fractions, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, np.rint(drawn))
    shares = tpm.draw_bulk(fractions, np.random.default_rng(0))
    assert 0.3 < np.median(shares.sum(axis=1)) < 3
    assert (shares >= 0).all()
    # apart from the depths both calibrations use the same bulk
    np.testing.assert_allclose(tpm.genes["platform_shift"], counts.genes["platform_shift"], atol=0.02)


def test_only_the_calibration_is_written(pairs, unchanged):
    with unchanged(*pairs.mod.values()):
        calibration = pp.calibrate(pairs, batch_key="batch")
    assert pairs.uns["scdeconv"]["calibrate"] == {"batch_key": "batch"}
    assert_same_calibration(Calibration.of(pairs), calibration, rtol=0)
    assert calibration.n_donors == 10
    assert list(calibration.genes.index) == list(pairs["bulk"].var_names)
    assert list(calibration.cell_types.index) == list(pairs["profiles"].obs["cell_type"])


@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_calibration_survives_a_round_trip_through_a_file(pairs, tmp_path, batch_key):
    calibration = pp.calibrate(pairs, batch_key=batch_key)
    write_mudata(pairs, tmp_path / "pairs.h5mu")
    read = read_mudata(tmp_path / "pairs.h5mu")
    assert_same_calibration(Calibration.of(read), calibration, rtol=0)
    # and can be worked with
    assert repr(Calibration.of(read)) == repr(calibration)
    pp.simulate(read, 5, calibration=True)
    pp.simulate(pairs, 5, calibration=True)
    np.testing.assert_array_equal(read["simulated"].X, pairs["simulated"].X)
    donor = pairs["bulk"].obs["donor"].iloc[0]
    first, second = (Calibration.of(pp.hold_out(data, [donor])[0]) for data in (read, pairs))
    assert_same_calibration(first, second, rtol=1e-10)


def test_calibration_of_thousands_of_genes_can_be_written(tmp_path):
    """A table with 4093 to about 5900 columns, one for each gene, does not fit HDF5's attributes."""
    mdata = plant(4, n_genes=5000)
    calibration = pp.calibrate(mdata, batch_key="run")
    write_mudata(mdata, tmp_path / "pairs.h5mu")
    assert_same_calibration(Calibration.of(read_mudata(tmp_path / "pairs.h5mu")), calibration, rtol=0)


def test_missing_calibration_is_reported(pairs):
    with pytest.raises(KeyError, match=r"found none. Call pp.calibrate\(mdata\) first"):
        Calibration.of(pairs)


@pytest.mark.parametrize("batch_key", [None, "batch"])
@pytest.mark.parametrize("kept", [slice(None), slice(20, 100)])
def test_hold_out_equals_calibrating_remaining_donors_from_cells(pairs, batch_key, kept):
    genes = pairs["bulk"].var_names[kept]
    paired = pp.paired_donors(pairs)
    bulk_only = sorted(set(pairs["bulk"].obs["donor"]) - set(paired))
    for donors in (paired[:1], [paired[2], paired[7]], bulk_only[:1]):
        rest, _ = pp.hold_out(pairs, donors)
        expected = fit_calibration(PairedData(rest, genes), (), batch_key=batch_key)
        found = fit_calibration(PairedData(pairs, genes), donors, batch_key=batch_key)
        assert found.n_donors == 10 - len(set(donors) & set(paired))
        assert_same_calibration(found, expected, rtol=1e-8, atol=1e-10)


def test_hold_out_equals_calibrating_remaining_donors_from_profiles():
    mdata = plant(9)
    genes = mdata["bulk"].var_names[10:200]
    for donors in (["D3"], ["D0", "D8"], [f"D{i}" for i in range(7)]):
        rest, _ = pp.hold_out(mdata, donors)
        expected = fit_calibration(PairedData(rest, genes), (), batch_key=None)
        found = fit_calibration(PairedData(mdata, genes), donors, batch_key=None)
        assert_same_calibration(found, expected, rtol=1e-10)


def test_held_out_donor_has_no_influence(pairs):
    genes = pairs["bulk"].var_names
    donor = pp.paired_donors(pairs)[4]
    before = fit_calibration(PairedData(pairs, genes), [donor], batch_key=None)
    pairs["bulk"].X[(pairs["bulk"].obs["donor"] == donor).to_numpy(), :50] *= 1000
    rows = (pairs["sums"].obs["donor"] == donor).to_numpy()
    pairs["sums"].X[rows] = pairs["sums"].X[rows] * 9
    after = fit_calibration(PairedData(pairs, genes), [donor], batch_key=None)
    assert_same_calibration(after, before, rtol=0)


def test_hold_out_calibrates_again_without_the_donor(pairs):
    pp.calibrate(pairs, batch_key="batch")
    donor = pp.paired_donors(pairs)[0]
    rest, _ = pp.hold_out(pairs, [donor])
    stored = Calibration.of(rest)
    assert stored.n_donors == 9
    assert Calibration.of(pairs).n_donors == 10
    assert rest.uns["scdeconv"]["calibrate"] == {"batch_key": "batch"}
    del rest.uns["scdeconv"]["calibration"]
    assert_same_calibration(stored, pp.calibrate(rest, batch_key="batch"), rtol=0)


def test_hold_out_does_not_add_a_calibration(pairs):
    rest, _ = pp.hold_out(pairs, [pp.paired_donors(pairs)[0]])
    assert "calibration" not in rest.uns["scdeconv"]
