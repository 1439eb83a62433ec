"""CalibratedMAP: the solution of the calibration of the pairs, cross-fitted over donors, without any network."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.special import softmax

from scdeconv import datasets, metrics, pp, tl
from scdeconv._stats.expression import log_shares
from scdeconv.models import CalibratedMAP, PairedData
from scdeconv.pp import fit_calibration


def solution(mdata, genes, expression, without=()):
    """Softmax of the log-ratios with the highest posterior density, samples × cell types."""
    calibration = fit_calibration(PairedData(mdata, genes), without, batch_key=None)
    return softmax(calibration.model().solve(log_shares(expression), expression.sum(axis=1)), axis=1)


def test_training_prints_the_error_on_held_out_donors(pairs, capsys):
    assert type(tl.train(pairs, "calibrated_map")) is CalibratedMAP
    assert capsys.readouterr().out.startswith("calibrated_map: 10 donors, 4 profiles, 240 genes; out-of-fold RMSE")


def test_fractions_are_the_solution_of_the_calibration(pairs):
    model = tl.train(pairs, "calibrated_map")
    counts = pairs["bulk"][:, model.genes_].X.astype(float)
    np.testing.assert_allclose(
        model.predict(pairs["bulk"], in_sample=True), solution(pairs, model.genes_, counts), atol=1e-9
    )


def test_out_of_fold_predictions_leave_whole_donors_out(repeated_pairs, donors_of_rows):
    model = tl.train(repeated_pairs, "calibrated_map")
    np.testing.assert_array_equal(model.held_out_.donors, donors_of_rows(repeated_pairs))
    folds = model._folds(pp.paired_donors(repeated_pairs))
    assert sorted(sum(folds, [])) == sorted(pp.paired_donors(repeated_pairs))
    for donors in folds[:2]:
        rows = repeated_pairs["bulk"].obs["donor"].isin(donors).to_numpy()
        counts = repeated_pairs["bulk"][rows, model.genes_].X.astype(float)
        expected = solution(repeated_pairs, model.genes_, counts, donors)
        found = model.held_out_.predicted[np.isin(model.held_out_.donors, donors)]
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_at_most_five_folds_are_fitted(monkeypatch):
    mdata = pp.pair(*datasets.paired_cohort(n_donors=13, n_genes=100, cells_per_donor=(40, 60), n_cell_types=4))
    without, fit = [], CalibratedMAP.fit
    monkeypatch.setattr(
        CalibratedMAP,
        "fit",
        lambda self, data, left_out=(): (without.append(list(left_out)), fit(self, data, left_out))[1],
    )
    tl.train(mdata, "calibrated_map")
    assert len(without) == 5 + 1
    assert sorted(sum(without, [])) == sorted(pp.paired_donors(mdata))
    assert without[-1] == []


def test_fit_is_pure(pairs, unchanged, global_state_untouched):
    data = PairedData(pairs, pairs["bulk"].var_names)
    model = CalibratedMAP(pairs)
    with unchanged(pairs), global_state_untouched():
        first, other, again = model.fit(data), model.fit(data, [pp.paired_donors(pairs)[0]]), model.fit(data)
    assert not model.is_trained_
    expression = pairs["bulk"].X.astype(float)
    np.testing.assert_array_equal(first.predict(expression), again.predict(expression))
    assert np.abs(first.predict(expression) - other.predict(expression)).max() > 1e-4


def test_quality_flags_noise_in_a_sample(pairs):
    model = tl.train(pairs, "calibrated_map")
    bulk = pairs["bulk"].copy()
    quality = model.quality(bulk)
    assert list(quality) == ["noise", "composition", "outside", "few_reads"]
    bulk.X[0] = np.random.default_rng(0).permutation(bulk.X[0])
    worse = model.quality(bulk)
    assert worse["noise"].iloc[0] > 2 * quality["noise"].iloc[0]
    assert bool(worse["outside"].iloc[0])
    np.testing.assert_allclose(worse["noise"].iloc[1:], quality["noise"].iloc[1:])


def test_intervals_contain_the_estimates(pairs):
    model = tl.train(pairs, "calibrated_map")
    fractions = model.predict(pairs["bulk"], in_sample=True)
    lower, upper = model.predict_interval(pairs["bulk"], 0.9, in_sample=True)
    assert ((lower <= fractions + 1e-12) & (fractions <= upper + 1e-12)).all(axis=None)


def test_three_pairs_are_enough():
    cells, bulk = datasets.paired_cohort(n_donors=3, n_genes=200, cells_per_donor=(50, 100))
    model = tl.train(pp.pair(cells, bulk))
    assert model.method == "calibrated_map"
    assert len(model.held_out_.donors) == 3
    np.testing.assert_allclose(model.predict(bulk, in_sample=True).sum(axis=1), 1)


def test_sample_without_counts_is_no_pair(empty_sample_pairs):
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        fractions = tl.train(empty_sample_pairs, "calibrated_map").predict(empty_sample_pairs["bulk"])
    assert list(fractions.isna().all(axis=1)) == [True] + [False] * (len(fractions) - 1)


def test_missing_genes_take_the_training_mean(pairs):
    model = tl.train(pairs, "calibrated_map", held_out=False)
    known = pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    shares = pairs["bulk"].X[:, pairs["bulk"].var_names.get_indexer(model.genes_)][known].astype(float)
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.state_.reference, shares.mean(axis=0), rtol=1e-6)


def test_batches_of_calibrate_are_modelled_separately(pairs):
    without = tl.train(pairs, "calibrated_map", held_out=False).predict(pairs["bulk"], in_sample=True)
    pp.calibrate(pairs, batch_key="batch")
    model = tl.train(pairs, "calibrated_map", held_out=False)
    data = PairedData(pairs, model.genes_)
    calibration = fit_calibration(data, (), batch_key="batch")
    counts = pairs["bulk"][:, model.genes_].X.astype(float)
    expected = softmax(calibration.model().solve(log_shares(counts), counts.sum(axis=1)), axis=1)
    np.testing.assert_allclose(model.predict(pairs["bulk"], in_sample=True), expected, atol=1e-9)
    assert not np.allclose(model.predict(pairs["bulk"], in_sample=True), without, atol=1e-6)


def test_seed_is_accepted_without_effect(pairs):
    first, other = (tl.train(pairs, "calibrated_map", seed=seed) for seed in (0, 1))
    assert first.seed_ is None
    assert first.history is None
    pd.testing.assert_frame_equal(
        first.predict(pairs["bulk"], in_sample=True), other.predict(pairs["bulk"], in_sample=True), check_exact=True
    )


def test_saved_model_keeps_predictions_intervals_and_quality(pairs, tmp_path):
    model = tl.train(pairs, "calibrated_map")
    model.save(tmp_path / "model")
    loaded = CalibratedMAP.load(tmp_path / "model")
    expected, found = (m.estimate(pairs["bulk"], coverage=0.9, in_sample=True) for m in (model, loaded))
    assert set(expected) == {"fractions", "lower", "upper", "quality", "source"}
    for name, frame in expected.items():
        pd.testing.assert_frame_equal(found[name], frame, check_exact=True)


def test_training_does_not_import_torch():
    code = (
        "import sys, scdeconv; from scdeconv import datasets, pp, tl; "
        "tl.train(pp.pair(*datasets.paired_cohort(n_donors=3, n_genes=100, cells_per_donor=(30, 40), n_cell_types=4))); "
        "assert not {'torch', 'scvi', 'lightning'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


# learning


@pytest.fixture(scope="module")
def default_cohort():
    return datasets.paired_cohort()


METHODS = [
    ("calibrated_map", {}),
    ("residual_dnn", {"simulate": 100}),
    ("residual_dnn", {"base": "ridge", "simulate": None}),
]


def errors(mdata, method, arguments, seed):
    truth = mdata["bulk"].obsm["measured_fractions"].dropna()
    return [
        metrics.rmse(truth, tl.cross_validate(mdata, name, cv=3, seed=seed, **options))
        for name, options in ((method, arguments), ("mean_composition", {}))
    ]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_beats_the_mean_composition_by_a_quarter(default_cohort, method, arguments, seed):
    error, baseline = errors(pp.pair(*default_cohort), method, arguments, seed)
    assert error < 0.75 * baseline


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("method", "arguments"), METHODS)
def test_pure_noise_gives_the_mean_composition(default_cohort, method, arguments, seed):
    cells, bulk = default_cohort
    rng = np.random.default_rng(seed)
    noise = AnnData(rng.poisson(rng.lognormal(4, 1, bulk.shape)), obs=bulk.obs, var=bulk.var)
    error, baseline = errors(pp.pair(cells, noise), method, arguments, seed)
    assert 0.98 * baseline < error < 1.2 * baseline
