from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from robust_nnls_data import SIZES, as_samples, make_bulk, make_mdata, rmse, solve, train

from scdeconv import pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.solvers import platform_shift as _platform_shift
from scdeconv._stats.solvers.platform_shift import PlatformShift
from scdeconv.models import RobustNNLS
from scdeconv.models.reference.nnls import solve_nnls


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("n_samples", [1, 15])
@pytest.mark.parametrize("seed", range(4))
def test_noise_free_fractions_of_cells_are_recovered(seed, n_samples, counts):
    """RNA content differs ninefold between types, so RNA fractions would have a large error."""
    signature, bulk, fractions, _ = make_bulk(seed, n_samples)
    bulk = bulk * 1e6
    weights, shift = solve(signature, bulk, counts=counts)
    np.testing.assert_allclose(to_fractions(weights), fractions, atol=1e-6)
    assert shift.sd == _platform_shift.MIN_EFFECT_SD
    assert rmse(to_fractions(fractions * SIZES), fractions) > 0.1


def test_absent_types_are_zero():
    signature, _, fractions, _ = make_bulk(0)
    fractions[:, 1] = 0
    fractions = to_fractions(fractions)
    weights, _ = solve(signature, fractions @ signature, counts=False)
    np.testing.assert_allclose(to_fractions(weights), fractions, atol=1e-6)


@pytest.mark.parametrize("n_samples", [1, 3, 20])
@pytest.mark.parametrize("seed", range(6))
def test_outlier_genes_affect_nnls_more(seed, n_samples):
    signature, bulk, fractions, _ = make_bulk(seed, n_samples, shift_sd=0.3, n_far=5)
    robust, _ = solve(signature, bulk, counts=False)
    plain = rmse(to_fractions(solve_nnls(signature, bulk)), fractions)
    assert plain > 0.05
    assert rmse(to_fractions(robust), fractions) <= plain / 2


@pytest.mark.parametrize("seed", range(6))
def test_outlier_genes_have_little_weight(seed):
    signature, bulk, _, far = make_bulk(seed, shift_sd=0.3, n_far=5)
    _, shift = solve(signature, bulk, counts=False)
    assert (shift.trust[far] < 0.1).all()
    assert np.median(np.delete(shift.trust, far)) > 0.8
    # that of the other genes, minus the part explained by the composition; a standard deviation would be 0.8
    assert 0.1 < shift.sd < 0.4


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_given_shift_solutions_are_independent_of_other_samples(seed, counts):
    rng = np.random.default_rng(seed)
    signature, shares, _, _ = make_bulk(seed, shift_sd=0.4, n_far=3)
    bulk = rng.poisson(shares * 10 ** rng.uniform(2.5, 5, (len(shares), 1))).astype(float)
    _, shift = solve(signature, bulk, counts=counts)
    together, _ = solve(signature, bulk, counts=counts, shift=shift)
    for sample, expected in zip(bulk, together, strict=True):
        alone, _ = solve(signature, sample[None], counts=counts, shift=shift)
        np.testing.assert_allclose(to_fractions(alone)[0], to_fractions(expected[None])[0], atol=1e-9)


def test_predictions_do_not_depend_on_the_batch():
    rng = np.random.default_rng(1)
    signature, shares, _, _ = make_bulk(1, shift_sd=0.4, n_far=3)
    bulk = rng.poisson(shares * 3000).astype(float)
    model = train(signature, bulk)
    expected = model.predict(as_samples(bulk)).to_numpy()
    for rows in ([3], [7, 3], range(10)):
        np.testing.assert_allclose(model.predict(as_samples(bulk[list(rows)])), expected[list(rows)], atol=1e-9)
    strange = np.vstack([bulk, rng.poisson(1e6 * rng.dirichlet(np.full(200, 0.05), 5))])
    np.testing.assert_allclose(model.predict(as_samples(strange))[:15], expected, atol=1e-9)


def test_shift_is_learned_in_training_and_kept():
    """A single sample has a smaller error with the gene shift of its cohort."""
    signature, bulk, fractions, _ = make_bulk(2, 30, shift_sd=0.5, n_far=8)
    rng = np.random.default_rng(0)
    noisy = bulk * np.exp(0.8 * rng.normal(size=bulk.shape))
    model = train(signature, noisy * 1.5e3)
    _, shift = solve(signature, noisy, counts=False)
    assert model.state_.shift.sd == pytest.approx(shift.sd)
    np.testing.assert_allclose(model.state_.shift.trust, shift.trust)
    known = np.vstack([model.predict(as_samples(sample[None] * 1.5e3)) for sample in noisy])
    anew = np.vstack([to_fractions(solve(signature, sample[None], counts=False)[0]) for sample in noisy])
    assert rmse(known, fractions) < 0.9 * rmse(anew, fractions)


@pytest.mark.parametrize("known_shift", [False, True])
def test_depth_affects_counts_only(known_shift):
    rng = np.random.default_rng(3)
    signature, bulk, _, _ = make_bulk(3, shift_sd=0.4, n_far=3)
    shift = solve(signature, bulk, counts=False)[1] if known_shift else None
    expected, _ = solve(signature, bulk, counts=False, shift=shift)
    deeper = bulk * 10 ** rng.uniform(-6, 6, (len(bulk), 1))
    found, _ = solve(signature, deeper, counts=False, shift=shift)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    some, _ = solve(signature, bulk * 500, counts=True, shift=shift)
    assert np.abs(some - expected).max() > 1e-3


def test_deep_counts_equal_shares():
    signature, bulk, _, _ = make_bulk(4, shift_sd=0.4, n_far=3)
    expected, _ = solve(signature, bulk, counts=False)
    for depth in (1e12, 1e15):
        found, _ = solve(signature, bulk * depth, counts=True)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_unit_of_the_signature_does_not_matter(factor):
    signature, bulk, _, _ = make_bulk(5, shift_sd=0.4, n_far=3)
    expected, _ = solve(signature, bulk * 1000, counts=True)
    found, _ = solve(signature * factor, bulk * 1000, counts=True)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_cell_sizes_convert_profiles_to_counts():
    signature, bulk, fractions, _ = make_bulk(6)
    mdata = make_mdata(signature / signature.sum(axis=1, keepdims=True) * 1e6, bulk * 1e6)
    mdata["profiles"].obs["cell_size_umi"] = signature.sum(axis=1)
    model = RobustNNLS(mdata)
    model.train()
    np.testing.assert_allclose(model.predict(as_samples(bulk * 1e6)), fractions, atol=1e-6)


@pytest.mark.parametrize("depth", [300, 1000, "from 100 to 100,000"])
def test_depth_of_counts_lowers_the_error(depth):
    errors = {True: [], False: []}
    for seed in range(30):
        rng = np.random.default_rng(1000 + seed)
        signature, shares, fractions, _ = make_bulk(seed, 20, shift_sd=0.15, n_far=2)
        depths = 10 ** rng.uniform(2, 5, (20, 1)) if isinstance(depth, str) else depth
        counts = rng.poisson(shares * depths).astype(float)
        for known, list_ in errors.items():
            list_.append(rmse(to_fractions(solve(signature, counts, counts=known)[0]), fractions))
    assert np.mean(errors[True]) < 0.99 * np.mean(errors[False])


def test_counts_are_told_from_other_units():
    rng = np.random.default_rng(7)
    signature, shares, _, _ = make_bulk(7, shift_sd=0.4, n_far=3)
    bulk = rng.poisson(shares * 1000).astype(float)
    expected = {known: to_fractions(solve(signature, bulk, counts=known)[0]) for known in (True, False)}
    np.testing.assert_allclose(train(signature, bulk).predict(as_samples(bulk)), expected[True], atol=1e-3)
    estimated = bulk * 1.25 + 1e-9
    np.testing.assert_allclose(train(signature, estimated).predict(as_samples(bulk)), expected[False], atol=1e-3)
    assert np.abs(expected[True] - expected[False]).max() > 0.01


def test_empty_sample_is_uniform(silence):
    signature, bulk, fractions, _ = make_bulk(8)
    bulk = np.round(bulk * 1e7)
    bulk[[0, 4]] = 0
    for counts in (True, False):
        weights, shift = solve(signature, bulk, counts=counts)
        predicted = to_fractions(weights)
        np.testing.assert_array_equal(predicted[[0, 4]], np.full((2, 4), 0.25))
        np.testing.assert_allclose(np.delete(predicted, [0, 4], 0), np.delete(fractions, [0, 4], 0), atol=1e-3)
        alone, _ = solve(signature, bulk[:1], counts=counts, shift=shift)
        np.testing.assert_array_equal(alone, np.zeros((1, 4)))
        np.testing.assert_array_equal(solve(signature, bulk[:1], counts=counts)[0], np.zeros((1, 4)))


def test_empty_samples_cause_no_output(silence, capfd):
    signature, bulk, fractions, _ = make_bulk(9, n_genes=200)
    counts = np.round(bulk * 1e7)
    counts[2, :100] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        mdata = make_mdata(signature, counts)
    mdata["bulk"].var["selected"] = np.arange(200) < 100
    mdata["bulk"].obs["rna_per_spike_in"] = np.where(np.arange(15) == 5, np.nan, 3.0 + np.arange(15) % 2)
    capfd.readouterr()
    model = RobustNNLS(mdata)
    model.train()
    with pytest.warns(UserWarning, match="no reads"):
        predicted = model.predict(as_samples(counts)).to_numpy()
    assert np.isnan(predicted[2]).all()
    np.testing.assert_allclose(np.delete(predicted, 2, 0), np.delete(fractions, 2, 0), atol=1e-3)
    assert capfd.readouterr() == ("", "")


def test_single_training_sample_is_enough(silence):
    signature, bulk, fractions, _ = make_bulk(10, 6, shift_sd=0.2, n_far=4)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        model = train(signature, np.round(bulk[:1] * 1e7))
    error = rmse(model.predict(as_samples(np.round(bulk * 1e7))), fractions)
    assert error <= rmse(to_fractions(solve_nnls(signature, bulk)), fractions) / 2


def test_mixtures_are_recovered_with_missing_genes():
    signature, bulk, fractions, _ = make_bulk(11)
    model = train(signature, bulk * 1e6)
    fewer = as_samples(bulk * 1e6)[:, 80:].copy()
    with pytest.warns(UserWarning, match="80 of the model's 200 genes"):
        predicted = model.predict(fewer)
    np.testing.assert_allclose(predicted, fractions, atol=1e-6)


def test_missing_genes_do_not_change_the_weights():
    signature, bulk, fractions, far = make_bulk(12, shift_sd=0.2, n_far=6)
    model = train(signature, bulk * 1.5e3)
    keep = np.setdiff1d(np.arange(200), np.setdiff1d(np.arange(70), far))
    with pytest.warns(UserWarning, match="of the model's 200 genes"):
        predicted = model.predict(as_samples(bulk * 1.5e3)[:, keep].copy())
    plain = to_fractions(solve_nnls(signature[:, keep], bulk[:, keep]))
    assert rmse(predicted, fractions) <= rmse(plain, fractions) / 2
    shift = PlatformShift(model.state_.shift.sd, model.state_.shift.trust[keep])
    expected, _ = solve(signature[:, keep], bulk[:, keep], counts=False, shift=shift)
    np.testing.assert_allclose(predicted, to_fractions(expected), atol=1e-9)


@pytest.mark.parametrize("unit", ["counts", "other"])
def test_saved_and_loaded_model_gives_the_same_predictions(unit, tmp_path):
    rng = np.random.default_rng(13)
    signature, shares, _, _ = make_bulk(13, shift_sd=0.4, n_far=3)
    bulk = rng.poisson(shares * 1000) * (1 if unit == "counts" else 1.37)
    model = train(signature, bulk)
    new = as_samples(rng.poisson(shares * 700))
    model.save(tmp_path / "model")
    loaded = RobustNNLS.load(tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.predict(new), model.predict(new), check_exact=True)
    other = solve(signature, new.X, counts=unit != "counts", shift=model.state_.shift)[0]
    assert np.abs(to_fractions(other) - model.predict(new).to_numpy()).max() > 0.01


@pytest.mark.parametrize("spike_ins", [False, True])
def test_training_ignores_bulk_of_held_out_donors(pairs, cohort, spike_ins):
    if spike_ins:
        sizes = pairs["profiles"].obs["cell_size_umi"] * np.array([2, 0.5, 1, 1.5])
        per_cell = cohort[1].obsm["true_fractions"][list(sizes.index)] @ sizes
        pairs["bulk"].obs["rna_per_spike_in"] = per_cell.loc[pairs["bulk"].obs_names].to_numpy()
    model = RobustNNLS(pairs)
    model.train()
    assert spike_ins == model.summary_.endswith("cell sizes from spike-ins")
    donors = list(model.held_out_.donors)
    assert sorted(set(donors)) == pp.paired_donors(pairs)
    of_all = model.predict(pairs["bulk"])
    for donor in pp.paired_donors(pairs)[:3]:
        training, held_out = pp.hold_out(pairs, [donor])
        without = RobustNNLS(training)
        without.train(held_out=False)
        predicted = without.predict(held_out)
        np.testing.assert_allclose(model.held_out_.predicted[donors.index(donor)], predicted.iloc[0], rtol=1e-9)
        assert not np.allclose(predicted, of_all.loc[predicted.index], rtol=1e-6)


def test_shift_is_learned_from_unpaired_bulk_too(pairs):
    model = RobustNNLS(pairs)
    model.train(held_out=False)
    known = pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    assert not known.all()
    fewer = RobustNNLS(make_mudata({**pairs.mod, "bulk": pairs["bulk"][known].copy()}))
    fewer.train(held_out=False)
    assert not np.allclose(fewer.state_.shift.trust, model.state_.shift.trust, rtol=1e-3)


def test_without_training_bulk_it_is_like_nnls(cohort, capsys, silence):
    """After holding out all donors only the reference remains."""
    cells, bulk = cohort
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = bulk[-1:].copy()
        training, held_out = pp.hold_out(pp.pair(cells, one), list(one.obs["donor"]))
    assert training["bulk"].n_obs == 0
    truth = one.obsm["true_fractions"]
    predicted, plain = (tl.train(training, name).predict(held_out)[truth.columns] for name in ("robust_nnls", "nnls"))
    assert rmse(predicted, truth) < 1.5 * rmse(plain, truth)


def test_it_is_the_default_without_pairs(cohort):
    cells, bulk = cohort
    other = bulk.copy()
    other.obs["donor"] = [f"somebody else {letter}" for letter in "ABCDEFGHIJKL"]
    with pytest.warns(UserWarning, match="paired donors to train on pairs, found 0"):
        mdata = pp.pair(cells, other)
    assert isinstance(tl.train(mdata), RobustNNLS)
