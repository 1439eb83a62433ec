"""What calibrate learns, against cohorts in which it was planted."""

from __future__ import annotations

import dataclasses
import warnings
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import datasets, pp
from scdeconv._data.modalities import make_mudata, read_mudata, write_mudata
from scdeconv._data.reference import Reference
from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.shrinkage import shrink_variances
from scdeconv.pp import Calibration, centred_log_ratio, fit_calibration
from scdeconv.pp._calibrate import size_step

if TYPE_CHECKING:
    from mudata import MuData


def quiet_pair(*args, **kwargs):
    with redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pp.pair(*args, **kwargs)


@dataclasses.dataclass
class Planted:
    mdata: MuData
    shift: np.ndarray
    loadings: np.ndarray
    fractions: np.ndarray
    sizes: np.ndarray
    claimed: np.ndarray


def plant(
    n_donors=30, *, n_genes=300, seed=0, noise_sd=0.1, factor_sd=0.2, concentration=2.0, sizes=None, claimed=None,
    batch_shift=None, tpm=False,
):  # fmt: skip
    """Bulk exactly of the calibration's model, with profiles and fractions given, and the truth."""
    rng = np.random.default_rng(seed)
    sizes = np.ones(4) if sizes is None else sizes
    claimed = sizes if claimed is None else claimed
    shares = np.exp(rng.normal(0, 0.8, n_genes) + rng.normal(0, 0.8, (4, n_genes)))
    shares /= shares.sum(axis=1, keepdims=True)
    fractions = rng.dirichlet(np.full(4, concentration), n_donors)
    shift, loadings = rng.normal(0, 0.4, n_genes), factor_sd * rng.normal(size=(2, n_genes))
    log = log_shares(fractions @ (sizes[:, None] * shares)) + shift
    log += rng.normal(size=(n_donors, 2)) @ loadings + noise_sd * rng.normal(size=(n_donors, n_genes))
    if batch_shift is not None:
        log += batch_shift[np.arange(n_donors) % len(batch_shift)]
    linear = np.maximum(np.expm1(log), 0)
    linear /= linear.sum(axis=1, keepdims=True)
    types, genes = [f"T{i}" for i in range(4)], pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    obs = pd.DataFrame({"donor": [f"D{i}" for i in range(n_donors)]}, index=[f"bulk{i}" for i in range(n_donors)])
    obs["run"] = [f"run{i % 2}" for i in range(n_donors)]
    bulk = AnnData(linear * 1e6 if tpm else rng.poisson(3e7 * linear), obs=obs, var=genes)
    bulk.obsm["measured_fractions"] = pd.DataFrame(fractions, index=obs.index, columns=types)
    profiles = AnnData(claimed[:, None] * 1000 * shares, obs=pd.DataFrame(index=types), var=genes)
    return Planted(quiet_pair(bulk=bulk, profiles=profiles), shift, loadings, fractions, sizes, claimed)


def repeated(mdata, repeats):
    """The same data with each bulk sample there so many times."""
    bulk = mdata["bulk"]
    rows = np.repeat(np.arange(bulk.n_obs), repeats)
    names = pd.Index([f"sample{i}" for i in range(len(rows))])
    more = AnnData(bulk.X[rows], obs=bulk.obs.iloc[rows].set_index(names), var=bulk.var)
    more.obsm["measured_fractions"] = bulk.obsm["measured_fractions"].iloc[rows].set_index(names)
    return make_mudata({**mdata.mod, "bulk": more})


def shift_error(calibration, truth):
    """The level of all shifts cannot be told from depth, so it does not count."""
    return float((calibration.genes["platform_shift"].to_numpy() - truth).std())


def log_size_error(sizes, truth):
    ratio = np.log(np.asarray(sizes) / truth)
    return float(np.abs(ratio - ratio.mean()).max())


def assert_same_calibration(first, second, **tolerance):
    assert vars(first).keys() == vars(second).keys()
    for name, value in vars(first).items():
        other = getattr(second, name)
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, other, check_index_type=False, **tolerance)
        else:
            np.testing.assert_allclose(other, value, **tolerance, err_msg=name)


@pytest.fixture(scope="module")
def large_cohort():
    cells, bulk = datasets.paired_cohort(
        n_donors=30, n_bulk_only=0, n_reference_only=0, n_genes=400, n_cell_types=5, cells_per_donor=(100, 200), seed=3
    )
    return quiet_pair(cells, bulk), bulk.uns["cohort"]


def test_platform_shift_of_the_cohort_is_recovered_from_thirty_donors(large_cohort):
    mdata, planted = large_cohort
    shift = pp.calibrate(mdata).genes["platform_shift"]
    # what the types have on average is a shift of the gene
    truth = planted["platform_shift"] + planted["platform_shift_of_type"].mean(axis=0)
    assert np.corrcoef(shift, truth)[0, 1] > 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_platform_shift_is_recovered_where_bulk_is_of_the_model(seed):
    planted = plant(seed=seed)
    calibration = pp.calibrate(planted.mdata)
    assert np.corrcoef(calibration.genes["platform_shift"], planted.shift)[0, 1] > 0.95
    assert shift_error(calibration, planted.shift) < 0.1


def test_error_of_the_shift_falls_with_the_number_of_pairs():
    errors = []
    for n_donors in (3, 5, 10, 30):
        many = [plant(n_donors, seed=seed) for seed in range(6)]
        errors.append(np.mean([shift_error(pp.calibrate(planted.mdata), planted.shift) for planted in many]))
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < 0.6 * errors[0]
    assert errors[0] < plant(3).shift.std()


def test_shifts_of_few_pairs_are_drawn_to_zero_and_their_uncertainty_told():
    """With much noise the shrunk shift errs less than the mean difference of the pairs, and about as much as it says."""
    shrunk, raw, claimed = [], [], []
    for seed in range(6):
        planted = plant(3, seed=seed, noise_sd=0.6, factor_sd=0.0)
        calibration = pp.calibrate(planted.mdata)
        table = calibration.genes
        bulk = log_shares(planted.mdata["bulk"].X.astype(float))
        difference = (bulk - calibration.expected(planted.fractions)).mean(axis=0)
        assert (np.abs(table["platform_shift"]) <= np.abs(difference) + 1e-9).all()
        shrunk.append(shift_error(calibration, planted.shift))
        raw.append((difference - planted.shift).std())
        claimed.append(np.sqrt((table["shift_sd"] ** 2).mean()))
    assert np.mean(shrunk) < 0.95 * np.mean(raw)
    assert np.mean(claimed) == pytest.approx(np.mean(shrunk), rel=0.3)


def test_repeatability_is_the_share_of_the_shift_in_the_variance():
    quiet, loud = (
        pp.calibrate(plant(seed=1, noise_sd=noise, factor_sd=0.0).mdata).genes["repeatability"].median()
        for noise in (0.1, 0.4)
    )
    assert quiet == pytest.approx(0.4**2 / (0.4**2 + 0.1**2), abs=0.05)
    assert loud == pytest.approx(0.5, abs=0.1)


def test_residual_covariance_is_recovered():
    planted = plant(60, seed=1, factor_sd=0.3)
    calibration = pp.calibrate(planted.mdata)
    pairs = np.triu_indices(300, 1)
    learned = (calibration.loadings.T @ calibration.loadings)[pairs]
    truth = (planted.loadings.T @ planted.loadings)[pairs]
    assert np.corrcoef(learned, truth)[0, 1] > 0.9
    assert np.polyfit(truth, learned, 1)[0] == pytest.approx(1, abs=0.3)
    total = (calibration.loadings**2).sum() + (calibration.genes["residual_sd"] ** 2).sum()
    assert total == pytest.approx((planted.loadings**2).sum() + 300 * 0.1**2, rel=0.2)


def test_independent_noise_is_not_taken_for_factors():
    calibration = pp.calibrate(plant(12, seed=2, factor_sd=0.0, noise_sd=0.3).mdata)
    assert (calibration.loadings**2).sum() < 0.15 * (calibration.genes["residual_sd"] ** 2).sum()
    assert calibration.genes["residual_sd"].median() == pytest.approx(0.3, rel=0.15)


def test_covariance_is_that_of_the_deviations_shrunk_entry_by_entry():
    """Off the diagonal (1 - intensity) times what the deviations say; on it the shrunk variances, counting taken out."""
    planted = plant(8, seed=3, tpm=True)
    calibration = pp.calibrate(planted.mdata)
    log = log_shares(planted.mdata["bulk"].X)
    residuals = log - calibration.expected(planted.fractions)
    deviations = residuals - residuals.mean(axis=0)
    learned = calibration.loadings.T @ calibration.loadings
    np.testing.assert_allclose(
        np.diag(learned) + calibration.genes["residual_sd"] ** 2, shrink_variances(deviations), rtol=1e-6
    )
    correlation = np.corrcoef(deviations.T)
    scale = np.sqrt(np.diag(learned))
    np.testing.assert_allclose(learned / np.outer(scale, scale), correlation, atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_distorted_cell_sizes_are_brought_closer_to_the_truth(seed):
    sizes = np.array([1.0, 2.0, 0.7, 3.0])
    planted = plant(15, seed=seed, concentration=0.7, sizes=sizes, claimed=sizes * np.array([2.0, 0.6, 1.3, 0.7]))
    table = pp.calibrate(planted.mdata).cell_types
    np.testing.assert_allclose(table["cell_size_umi"] / table["cell_size_umi"].iloc[0], planted.claimed / 2, rtol=1e-6)
    assert log_size_error(table["cell_size"], sizes) < 0.5 * log_size_error(planted.claimed, sizes)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_true_cell_sizes_are_left_about_where_they_are(seed):
    sizes = np.array([1.0, 2.0, 0.7, 3.0])
    table = pp.calibrate(plant(15, seed=seed, concentration=0.7, sizes=sizes).mdata).cell_types
    assert log_size_error(table["cell_size"], sizes) < 0.15


def test_learned_cell_sizes_scale_the_profiles_and_keep_their_level():
    planted = plant(15, concentration=0.7, claimed=np.array([2.0, 0.6, 1.3, 0.7]))
    calibration = pp.calibrate(planted.mdata)
    given, _ = Reference(planted.mdata, planted.mdata["bulk"].var_names).profiles()
    factor = (calibration.cell_types["cell_size"] / calibration.cell_types["cell_size_umi"]).to_numpy()
    np.testing.assert_allclose(calibration.profiles, given * factor[:, None])
    assert np.log(factor).mean() == pytest.approx(0, abs=1e-10)


def test_size_step_is_the_posterior_mode_of_a_dense_linear_model():
    """All residuals as one vector, shifts integrated out: their covariance is within genes over samples."""
    rng = np.random.default_rng(0)
    n, n_genes, n_types, shift_variance = 4, 20, 3, 0.3
    fractions, profiles = rng.dirichlet(np.ones(n_types), n), rng.gamma(1, 1, (n_types, n_genes))
    variance, residuals = rng.uniform(0.1, 0.4, n_genes), rng.normal(0, 0.3, (n, n_genes))
    # numerical derivative of log expression by log sizes, samples x genes x types
    at = lambda log: log_shares(fractions @ (profiles * np.exp(log)[:, None]))
    steps = 1e-5 * np.eye(n_types)
    slopes = np.stack([(at(step) - at(-step)) / 2e-5 for step in steps], axis=2)
    precision, target = np.zeros((n_types, n_types)), np.zeros(n_types)
    for gene in range(n_genes):
        inverse = np.linalg.inv(variance[gene] * np.eye(n) + shift_variance)
        precision += slopes[:, gene].T @ inverse @ slopes[:, gene]
        target += slopes[:, gene].T @ inverse @ residuals[:, gene]
    deviations = residuals - residuals.mean(axis=0)
    correlation = np.corrcoef(deviations.T)
    excess = max(0.0, (correlation**2).sum() - n_genes - n_genes * (n_genes - 1) / (n - 1))
    trust = 1 / (1 + excess / n_genes)
    expected = np.linalg.solve(trust * precision + np.eye(n_types) / 0.3**2, trust * target)
    found = size_step(residuals, fractions, profiles, variance, shift_variance)
    np.testing.assert_allclose(found, expected - expected.mean(), atol=1e-6)


def test_compositions_are_described_by_their_log_ratios():
    planted = plant(40, seed=5)
    calibration = pp.calibrate(planted.mdata)
    ratios = centred_log_ratio(planted.fractions, 1e-3)
    np.testing.assert_allclose(calibration.cell_types["mean_log_ratio"], ratios.mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(calibration.covariance.sum(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(calibration.covariance, np.cov(ratios.T), atol=0.25)
    assert np.linalg.eigvalsh(calibration.covariance).min() > -1e-10


def test_centre_is_the_mean_of_what_bulk_of_the_donors_is_expected_to_be():
    planted = plant(12, seed=4)
    calibration = pp.calibrate(planted.mdata)
    observed = log_shares(planted.mdata["bulk"].X.astype(float)).mean(axis=0)
    expected = calibration.expected(planted.fractions).mean(axis=0) + calibration.genes["platform_shift"]
    np.testing.assert_allclose(calibration.centre, expected)
    assert np.abs(calibration.centre - observed).mean() < 0.05
    assert np.abs(calibration.centre - calibration.genes["platform_shift"] - observed).mean() > 0.2


@pytest.mark.parametrize("n_donors", [0, 1, 2])
def test_fewer_than_three_pairs_leave_what_the_reference_says(n_donors):
    planted = plant(6)
    bulk = planted.mdata["bulk"]
    bulk.obsm["measured_fractions"].iloc[n_donors:] = np.nan
    calibration = pp.calibrate(planted.mdata)
    assert calibration.n_donors == 0
    assert not calibration.genes["platform_shift"].any()
    assert (calibration.genes["shift_sd"] > 0.5).all()
    assert (calibration.cell_types["cell_size"] == calibration.cell_types["cell_size_umi"]).all()
    given, _ = Reference(planted.mdata, bulk.var_names).profiles()
    np.testing.assert_allclose(calibration.profiles, given)
    shares = given.mean(axis=0) / given.sum() * len(given)
    np.testing.assert_allclose(calibration.centre, np.log(1 + LEVEL * 300 * shares))
    # depths need no fractions
    np.testing.assert_allclose(calibration.depths, bulk.X.sum(axis=1))
    assert np.linalg.matrix_rank(calibration.covariance) == 3
    assert calibration.loadings.shape == (0, 300)


def test_many_samples_of_two_donors_are_two_pairs():
    planted = plant(2)
    assert pp.calibrate(repeated(planted.mdata, [5, 5])).n_donors == 0


@pytest.mark.parametrize("batch_key", [None, "run"])
@pytest.mark.parametrize("repeats", [[5] * 10, [8] + [1] * 9, [1, 2, 3, 4, 5] * 2], ids=str)
def test_copies_of_a_donors_sample_change_nothing(repeats, batch_key):
    planted = plant(10)
    once, often = (
        pp.calibrate(mdata, batch_key=batch_key) for mdata in (planted.mdata, repeated(planted.mdata, repeats))
    )
    assert often.n_donors == once.n_donors == 10
    # depths are of samples, whoever they are from
    np.testing.assert_allclose(often.depths, np.repeat(once.depths, repeats))
    assert_same_calibration(dataclasses.replace(often, depths=once.depths), once, rtol=1e-7, atol=1e-10)


def test_samples_of_a_donor_are_averaged_before_anything_else():
    """Log expression and fractions of a donor's samples are averaged, however many there are."""
    planted = plant(16, seed=3, tpm=True)
    codes = np.repeat(np.arange(8), [4, 3, 2, 2, 2, 1, 1, 1])
    planted.mdata["bulk"].obs["donor"] = [f"D{code}" for code in codes]
    calibration = pp.calibrate(planted.mdata)
    assert calibration.n_donors == 8
    assert len(calibration.loadings) == 8
    mean = lambda rows: np.stack([rows[codes == code].mean(axis=0) for code in range(8)])
    expected = calibration.expected(mean(planted.fractions))
    residuals = mean(log_shares(planted.mdata["bulk"].X)) - expected
    deviations = residuals - residuals.mean(axis=0)
    noise = (calibration.loadings**2).sum(axis=0) + calibration.genes["residual_sd"] ** 2
    np.testing.assert_allclose(noise, shrink_variances(deviations), rtol=1e-6)
    shift = calibration.genes["platform_shift"]
    np.testing.assert_allclose(calibration.centre, expected.mean(axis=0) + shift)
    kept = 1 - calibration.genes["shift_sd"] ** 2 / (residuals.mean(axis=0).var() - (noise / 8).mean())
    np.testing.assert_allclose(shift, residuals.mean(axis=0) * kept, rtol=1e-6)
    ratios = centred_log_ratio(mean(planted.fractions), 1e-3)
    np.testing.assert_allclose(calibration.cell_types["mean_log_ratio"], ratios.mean(axis=0), atol=1e-7)


def test_donor_in_two_batches_has_a_row_in_each():
    mdata = repeated(plant(10).mdata, 4)
    mdata["bulk"].obs["run"] = ["run0", "run0", "run1", "run1"] * 10
    calibration = pp.calibrate(mdata, batch_key="run")
    assert calibration.n_donors == 10
    assert len(calibration.loadings) == 20
    # the same samples in both batches: no shift between them
    np.testing.assert_allclose(calibration.batch_shift, 0, atol=1e-12)


def test_samples_of_types_without_cells_leave_numbers():
    """The only donor with cells may be left out: the reference is zero then, and nothing is learned of cell sizes."""
    planted = plant(6)
    genes = planted.mdata["bulk"].var_names
    reference = Reference(planted.mdata, genes)
    reference.profiles = lambda without=(): (np.zeros((4, 300)), np.zeros(4))
    calibration = fit_calibration(planted.mdata, reference, genes)
    assert not calibration.profiles.any()
    assert np.isfinite(calibration.genes.to_numpy()).all()
    assert np.isfinite(calibration.loadings).all()


def test_batch_shift_is_recovered():
    shift = np.random.default_rng(9).normal(0, 0.3, (2, 300))
    planted = plant(30, seed=6, batch_shift=shift - shift.mean(axis=0), factor_sd=0.05)
    calibration = pp.calibrate(planted.mdata, batch_key="run")
    assert list(calibration.batch_shift.columns) == ["run0", "run1"]
    assert list(calibration.batch_shift.index) == list(planted.mdata["bulk"].var_names)
    learned = calibration.batch_shift["run1"] - calibration.batch_shift["run0"]
    truth = shift[1] - shift[0]
    assert np.corrcoef(learned, truth)[0, 1] > 0.95
    assert np.polyfit(truth, learned, 1)[0] == pytest.approx(1, abs=0.1)
    # what the batches explain is no more noise of donors
    blind = pp.calibrate(planted.mdata)
    assert blind.batch_shift.shape == (300, 0)
    noise = [(c.loadings**2).sum() + (c.genes["residual_sd"] ** 2).sum() for c in (calibration, blind)]
    assert noise[0] < 0.5 * noise[1]


def test_batches_that_do_not_differ_get_next_to_no_shift():
    calibration = pp.calibrate(plant(30, seed=7, factor_sd=0.0).mdata, batch_key="run")
    assert np.abs(calibration.batch_shift.to_numpy()).max() < 0.03


def test_batches_of_the_cohort_are_told_apart(large_cohort):
    mdata, planted = large_cohort
    learned = pp.calibrate(mdata, batch_key="batch").batch_shift
    difference = (learned["batch2"] - learned["batch1"]).to_numpy()
    assert np.corrcoef(difference, planted["batch_shift"][1] - planted["batch_shift"][0])[0, 1] > 0.7


def test_column_that_is_not_there_is_named(pairs):
    with pytest.raises(KeyError, match=r"Expected column 'lane' in mdata\['bulk'\].obs, found \[.*'donor'"):
        pp.calibrate(pairs, batch_key="lane")
    assert "calibration" not in pairs.uns["scdeconv"]


def test_counts_have_depths_and_tpm_have_none():
    counts, tpm = (pp.calibrate(plant(8, tpm=is_tpm).mdata) for is_tpm in (False, True))
    np.testing.assert_allclose(counts.depths, 3e7, rtol=0.01)
    assert len(tpm.depths) == 0
    fractions = np.full((200, 4), 0.25)
    drawn = counts.draw_bulk(fractions, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, np.rint(drawn))
    shares = tpm.draw_bulk(fractions, np.random.default_rng(0))
    assert 0.3 < np.median(shares.sum(axis=1)) < 3
    assert (shares >= 0).all()
    # but for the depth the two calibrations are of the same bulk
    np.testing.assert_allclose(tpm.genes["platform_shift"], counts.genes["platform_shift"], atol=0.02)


def test_unit_of_the_profiles_and_depth_of_bulk_change_no_shift():
    planted = plant(10, tpm=True)
    before = pp.calibrate(planted.mdata)
    planted.mdata["bulk"].X = planted.mdata["bulk"].X * np.geomspace(0.01, 100, 10)[:, None]
    after = pp.calibrate(planted.mdata)
    np.testing.assert_allclose(after.genes.to_numpy(), before.genes.to_numpy(), rtol=1e-6, atol=1e-8)


def test_calibration_is_stored_and_nothing_else_is_changed(pairs, unchanged):
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
    mdata = plant(4, n_genes=5000).mdata
    calibration = pp.calibrate(mdata, batch_key="run")
    write_mudata(mdata, tmp_path / "pairs.h5mu")
    assert_same_calibration(Calibration.of(read_mudata(tmp_path / "pairs.h5mu")), calibration, rtol=0)


def test_no_calibration_is_told(pairs):
    with pytest.raises(KeyError, match=r"found none. Call pp.calibrate\(mdata\) first"):
        Calibration.of(pairs)


@pytest.mark.parametrize("batch_key", [None, "batch"])
@pytest.mark.parametrize("kept", [slice(None), slice(20, 100)])
def test_leaving_donors_out_equals_calibrating_the_rest_from_cells(pairs, batch_key, kept):
    genes = pairs["bulk"].var_names[kept]
    paired = pp.paired_donors(pairs)
    bulk_only = sorted(set(pairs["bulk"].obs["donor"]) - set(paired))
    for donors in (paired[:1], [paired[2], paired[7]], bulk_only[:1]):
        rest, _ = pp.hold_out(pairs, donors)
        expected = fit_calibration(rest, Reference(rest, genes), genes, batch_key=batch_key)
        found = fit_calibration(pairs, Reference(pairs, genes), genes, without=donors, batch_key=batch_key)
        assert found.n_donors == 10 - len(set(donors) & set(paired))
        assert_same_calibration(found, expected, rtol=1e-8, atol=1e-10)


def test_leaving_donors_out_equals_calibrating_the_rest_from_profiles():
    mdata = plant(9).mdata
    genes = mdata["bulk"].var_names[10:200]
    for donors in (["D3"], ["D0", "D8"], [f"D{i}" for i in range(7)]):
        rest, _ = pp.hold_out(mdata, donors)
        expected = fit_calibration(rest, Reference(rest, genes), genes)
        found = fit_calibration(mdata, Reference(mdata, genes), genes, without=donors)
        assert_same_calibration(found, expected, rtol=1e-10)


def test_donor_left_out_has_no_influence_whatever_its_data(pairs):
    genes = pairs["bulk"].var_names
    donor = pp.paired_donors(pairs)[4]
    before = fit_calibration(pairs, Reference(pairs, genes), genes, without=[donor])
    pairs["bulk"].X[(pairs["bulk"].obs["donor"] == donor).to_numpy(), :50] *= 1000
    rows = (pairs["sums"].obs["donor"] == donor).to_numpy()
    pairs["sums"].X[rows] = pairs["sums"].X[rows] * 9
    after = fit_calibration(pairs, Reference(pairs, genes), genes, without=[donor])
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


def test_hold_out_does_not_calibrate_where_that_was_not_done(pairs):
    rest, _ = pp.hold_out(pairs, [pp.paired_donors(pairs)[0]])
    assert "calibration" not in rest.uns["scdeconv"]
