from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.optimize import nnls

from scdeconv import pp, tl
from scdeconv._data.modalities import make_mudata
from scdeconv.models import RobustNNLS
from scdeconv.models._base import normalise
from scdeconv.models.reference import robust_nnls as _robust_nnls
from scdeconv.models.reference.nnls import solve_nnls
from scdeconv.models.reference.robust_nnls import PlatformShift, learn_shift, sizes_from_spike_ins, solve_robust_nnls

TYPES = ["B cell", "NK cell", "T cell", "monocyte"]
SIZES = np.array([1000.0, 4000.0, 2000.0, 9000.0])
SPIKE_INS = [f"ERCC-{i:05d}" for i in range(4)]


def solve(signature, bulk, *, counts, shift=None):
    """Learn the shift from the bulk itself unless it is given, then solve."""
    shift = learn_shift(signature, bulk, counts=counts) if shift is None else shift
    return solve_robust_nnls(signature, bulk, shift, counts=counts), shift


def rmse(predicted, measured):
    return float(np.sqrt(((np.asarray(predicted) - np.asarray(measured)) ** 2).mean()))


def make_signature(rng, sizes=SIZES, n_genes=200):
    """Mean counts per cell."""
    return sizes[:, None] * rng.dirichlet(np.full(n_genes, 0.5), len(sizes))


def make_bulk(seed, n_samples=15, *, shift_sd=0.0, n_far=0, n_genes=200):
    """Signature, shares of genes in bulk and fractions; genes are seen with a shift, a few of them a hundredfold."""
    rng = np.random.default_rng(seed)
    signature = make_signature(rng, n_genes=n_genes)
    fractions = rng.dirichlet(np.ones(len(signature)), n_samples)
    shift = np.exp(shift_sd * rng.normal(size=n_genes))
    far = rng.choice(n_genes, n_far, replace=False)
    shift[far] *= 100
    bulk = fractions @ signature * shift
    return signature, bulk / bulk.sum(axis=1, keepdims=True), fractions, far


def make_mdata(signature, bulk):
    """Pair bulk with the profiles alone; ``bulk`` is samples × genes, spike-ins may be among them."""
    genes = [f"G{i}" for i in range(signature.shape[1])]
    profiles = AnnData(signature, obs=pd.DataFrame(index=TYPES), var=pd.DataFrame(index=genes))
    names = genes + SPIKE_INS[: bulk.shape[1] - len(genes)]
    samples = AnnData(bulk, obs=pd.DataFrame(index=[f"s{i}" for i in range(len(bulk))]), var=pd.DataFrame(index=names))
    with pytest.warns(UserWarning, match="no donor is paired|paired donors"):
        return pp.pair(bulk=samples, profiles=profiles)


def train(signature, bulk):
    model = RobustNNLS(make_mdata(signature, bulk))
    model.train()
    return model


def as_samples(bulk):
    samples = AnnData(bulk)
    samples.var_names = [f"G{i}" for i in range(bulk.shape[1])]
    return samples


@pytest.fixture
def silence():
    """Nothing in here may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("n_samples", [1, 15])
@pytest.mark.parametrize("seed", range(4))
def test_noise_free_mixtures_are_recovered_as_shares_of_cells(seed, n_samples, counts):
    """The types differ ninefold in RNA, so shares of RNA would be far off."""
    signature, bulk, fractions, _ = make_bulk(seed, n_samples)
    bulk = bulk * 1e6
    weights, shift = solve(signature, bulk, counts=counts)
    np.testing.assert_allclose(normalise(weights), fractions, atol=1e-6)
    assert shift.sd == _robust_nnls.LEAST_SHIFT
    assert rmse(normalise(fractions * SIZES), fractions) > 0.1


def test_absent_types_get_nothing():
    signature, _, fractions, _ = make_bulk(0)
    fractions[:, 1] = 0
    fractions = normalise(fractions)
    weights, _ = solve(signature, fractions @ signature, counts=False)
    np.testing.assert_allclose(normalise(weights), fractions, atol=1e-6)


@pytest.mark.parametrize("n_samples", [1, 3, 20])
@pytest.mark.parametrize("seed", range(6))
def test_error_is_at_most_half_of_that_of_nnls_where_bulk_sees_a_few_genes_a_hundredfold(seed, n_samples):
    signature, bulk, fractions, _ = make_bulk(seed, n_samples, shift_sd=0.3, n_far=5)
    robust, _ = solve(signature, bulk, counts=False)
    plain = rmse(normalise(solve_nnls(signature, bulk)), fractions)
    assert plain > 0.05
    assert rmse(normalise(robust), fractions) <= plain / 2


@pytest.mark.parametrize("seed", range(6))
def test_genes_that_bulk_sees_a_hundredfold_are_hardly_trusted(seed):
    signature, bulk, _, far = make_bulk(seed, shift_sd=0.3, n_far=5)
    _, shift = solve(signature, bulk, counts=False)
    assert (shift.trust[far] < 0.1).all()
    assert np.median(np.delete(shift.trust, far)) > 0.8
    # that of the other genes, less what the composition takes up; a standard deviation would be 0.8
    assert 0.1 < shift.sd < 0.4


def one_iteration_by_loops(signature, bulk, *, counts, sd, trust):
    """Solutions that start the iterations and that follow from them, gene by gene and sample by sample, without any of the code."""
    n_types, n_genes = signature.shape
    scale = sum(float(signature[k].sum()) for k in range(n_types)) / n_types
    faint = 1 / (10 * n_genes)

    def fit(sample, variance):
        rows, right = np.zeros((n_genes, n_types)), np.zeros(n_genes)
        for g in range(n_genes):
            root = 1 / variance[g] ** 0.5
            right[g] = root * sample[g] / sum(sample)
            for k in range(n_types):
                rows[g, k] = root * signature[k, g] / scale
        return nnls(rows, right)[0]

    first, second = [], []
    for sample in bulk:
        typical = [sum(signature[k, g] for k in range(n_types)) / n_types / scale + faint for g in range(n_genes)]
        first.append(fit(sample, [typical[g] ** 2 / trust[g] for g in range(n_genes)]))
        level = [sum(first[-1][k] * signature[k, g] for k in range(n_types)) / scale + faint for g in range(n_genes)]
        noise = [counts * value / max(sum(sample), 1) for value in level]
        second.append(fit(sample, [((sd * level[g]) ** 2 + noise[g]) / trust[g] for g in range(n_genes)]))
    return np.array(first), np.array(second)


def shift_by_loops(signature, bulk, weights):
    n_types, n_genes = signature.shape
    scale, faint = signature.sum() / n_types, 1 / (10 * n_genes)
    logs = []
    for g in range(n_genes):
        observed = sum(sample[g] / sum(sample) for sample in bulk) / len(bulk)
        fitted = sum(x[k] * signature[k, g] / scale for x in weights for k in range(n_types)) / len(bulk)
        logs.append(np.log((observed + faint) / (fitted + faint)))
    middle = np.median(logs)
    sd = max(0.1, 1.4826 * np.median([abs(value - middle) for value in logs]))
    return sd, [3 / (2 + ((value - middle) / sd) ** 2) for value in logs]


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_one_iteration_equals_plain_loops(seed, counts, monkeypatch):
    rng = np.random.default_rng(seed)
    signature, shares, _, _ = make_bulk(seed, 4, shift_sd=0.4, n_far=2, n_genes=50)
    bulk = rng.poisson(shares * [[200], [2000], [20000], [200000]]).astype(float)
    monkeypatch.setattr(_robust_nnls, "MAX_ITERATIONS", 1)

    given = PlatformShift(0.25, rng.uniform(0.1, 1.5, 50))
    first, second = one_iteration_by_loops(signature, bulk, counts=counts, sd=given.sd, trust=given.trust)
    np.testing.assert_allclose(solve(signature, bulk, counts=counts, shift=given)[0], (first + second) / 2, atol=1e-8)
    assert np.abs(second - first).max() > 1e-3

    first, second = one_iteration_by_loops(signature, bulk, counts=counts, sd=1.0, trust=np.ones(50))
    sd, trust = shift_by_loops(signature, bulk, (first + second) / 2)
    shift = learn_shift(signature, bulk, counts=counts)
    assert shift.sd == pytest.approx(sd, rel=1e-6)
    np.testing.assert_allclose(shift.trust, trust, rtol=1e-6)


@pytest.mark.parametrize("counts", [False, True])
def test_solution_is_that_of_the_weights_that_it_implies(counts):
    rng = np.random.default_rng(0)
    signature, shares, _, _ = make_bulk(0, 5, shift_sd=0.4, n_far=3, n_genes=80)
    bulk = rng.poisson(shares * 5000).astype(float)
    weights, shift = solve(signature, bulk, counts=counts)
    unit = signature / signature.sum(axis=1).mean()
    for sample, found in zip(bulk, weights, strict=True):
        level = found @ unit + 1 / (10 * 80)
        variance = (shift.sd * level) ** 2 + counts * level / sample.sum()
        root = np.sqrt(shift.trust / variance)
        expected = nnls((unit * root).T, sample / sample.sum() * root)[0]
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_solution_of_a_sample_does_not_depend_on_the_others_once_the_shift_is_known(seed, counts):
    rng = np.random.default_rng(seed)
    signature, shares, _, _ = make_bulk(seed, shift_sd=0.4, n_far=3)
    bulk = rng.poisson(shares * 10 ** rng.uniform(2.5, 5, (len(shares), 1))).astype(float)
    _, shift = solve(signature, bulk, counts=counts)
    together, _ = solve(signature, bulk, counts=counts, shift=shift)
    for sample, expected in zip(bulk, together, strict=True):
        alone, _ = solve(signature, sample[None], counts=counts, shift=shift)
        np.testing.assert_allclose(normalise(alone)[0], normalise(expected[None])[0], atol=1e-9)


def test_prediction_of_a_sample_does_not_depend_on_those_predicted_with_it():
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
    """A lone sample of a cohort profits from what the cohort showed about the genes."""
    signature, bulk, fractions, _ = make_bulk(2, 30, shift_sd=0.5, n_far=8)
    rng = np.random.default_rng(0)
    noisy = bulk * np.exp(0.8 * rng.normal(size=bulk.shape))
    model = train(signature, noisy * 1.5e3)
    _, shift = solve(signature, noisy, counts=False)
    assert model.shift_sd_ == pytest.approx(shift.sd)
    np.testing.assert_allclose(model.trust_, shift.trust)
    known = np.vstack([model.predict(as_samples(sample[None] * 1.5e3)) for sample in noisy])
    anew = np.vstack([normalise(solve(signature, sample[None], counts=False)[0]) for sample in noisy])
    assert rmse(known, fractions) < 0.9 * rmse(anew, fractions)


@pytest.mark.parametrize("known_shift", [False, True])
def test_depth_of_a_sample_changes_nothing_unless_it_is_counts(known_shift):
    rng = np.random.default_rng(3)
    signature, bulk, _, _ = make_bulk(3, shift_sd=0.4, n_far=3)
    shift = solve(signature, bulk, counts=False)[1] if known_shift else None
    expected, _ = solve(signature, bulk, counts=False, shift=shift)
    deeper = bulk * 10 ** rng.uniform(-6, 6, (len(bulk), 1))
    found, _ = solve(signature, deeper, counts=False, shift=shift)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    some, _ = solve(signature, bulk * 500, counts=True, shift=shift)
    assert np.abs(some - expected).max() > 1e-3


def test_counts_of_any_great_depth_are_like_shares():
    signature, bulk, _, _ = make_bulk(4, shift_sd=0.4, n_far=3)
    expected, _ = solve(signature, bulk, counts=False)
    for depth in (1e12, 1e15):
        found, _ = solve(signature, bulk * depth, counts=True)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_unit_of_the_signature_changes_nothing(factor):
    signature, bulk, _, _ = make_bulk(5, shift_sd=0.4, n_far=3)
    expected, _ = solve(signature, bulk * 1000, counts=True)
    found, _ = solve(signature * factor, bulk * 1000, counts=True)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_profiles_in_another_unit_are_brought_to_counts_per_cell_by_their_cell_size():
    signature, bulk, fractions, _ = make_bulk(6)
    mdata = make_mdata(signature / signature.sum(axis=1, keepdims=True) * 1e6, bulk * 1e6)
    mdata["profiles"].obs["cell_size_umi"] = signature.sum(axis=1)
    model = RobustNNLS(mdata)
    model.train()
    np.testing.assert_allclose(model.predict(as_samples(bulk * 1e6)), fractions, atol=1e-6)


@pytest.mark.parametrize("depth", [300, 1000, "from 100 to 100,000"])
def test_depth_of_counts_is_worth_knowing(depth):
    errors = {True: [], False: []}
    for seed in range(30):
        rng = np.random.default_rng(1000 + seed)
        signature, shares, fractions, _ = make_bulk(seed, 20, shift_sd=0.15, n_far=2)
        depths = 10 ** rng.uniform(2, 5, (20, 1)) if isinstance(depth, str) else depth
        counts = rng.poisson(shares * depths).astype(float)
        for known, list_ in errors.items():
            list_.append(rmse(normalise(solve(signature, counts, counts=known)[0]), fractions))
    assert np.mean(errors[True]) < 0.99 * np.mean(errors[False])


def test_counts_are_told_from_other_units():
    rng = np.random.default_rng(7)
    signature, shares, _, _ = make_bulk(7, shift_sd=0.4, n_far=3)
    bulk = rng.poisson(shares * 1000).astype(float)
    expected = {known: normalise(solve(signature, bulk, counts=known)[0]) for known in (True, False)}
    np.testing.assert_allclose(train(signature, bulk).predict(as_samples(bulk)), expected[True], atol=1e-3)
    estimated = bulk * 1.25 + 1e-9
    np.testing.assert_allclose(train(signature, estimated).predict(as_samples(bulk)), expected[False], atol=1e-3)
    assert np.abs(expected[True] - expected[False]).max() > 0.01


def test_sample_without_any_signal_becomes_uniform_and_disturbs_nothing(silence):
    signature, bulk, fractions, _ = make_bulk(8)
    bulk = np.round(bulk * 1e7)
    bulk[[0, 4]] = 0
    for counts in (True, False):
        weights, shift = solve(signature, bulk, counts=counts)
        predicted = normalise(weights)
        np.testing.assert_array_equal(predicted[[0, 4]], np.full((2, 4), 0.25))
        np.testing.assert_allclose(np.delete(predicted, [0, 4], 0), np.delete(fractions, [0, 4], 0), atol=1e-3)
        alone, _ = solve(signature, bulk[:1], counts=counts, shift=shift)
        np.testing.assert_array_equal(alone, np.zeros((1, 4)))
        np.testing.assert_array_equal(solve(signature, bulk[:1], counts=counts)[0], np.zeros((1, 4)))


def test_model_is_trained_and_used_on_samples_without_signal_in_its_genes_and_says_nothing(silence, capfd):
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
    predicted = model.predict(as_samples(counts)).to_numpy()
    np.testing.assert_array_equal(predicted[2], np.full(4, 0.25))
    np.testing.assert_allclose(np.delete(predicted, 2, 0), np.delete(fractions, 2, 0), atol=1e-3)
    assert capfd.readouterr() == ("", "")


def test_single_training_sample_is_enough(silence):
    signature, bulk, fractions, _ = make_bulk(10, 6, shift_sd=0.2, n_far=4)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        model = train(signature, np.round(bulk[:1] * 1e7))
    error = rmse(model.predict(as_samples(np.round(bulk * 1e7))), fractions)
    assert error <= rmse(normalise(solve_nnls(signature, bulk)), fractions) / 2


def test_mixtures_are_recovered_from_the_genes_that_are_there():
    signature, bulk, fractions, _ = make_bulk(11)
    model = train(signature, bulk * 1e6)
    fewer = as_samples(bulk * 1e6)[:, 80:].copy()
    with pytest.warns(UserWarning, match="80 of the model's 200 genes"):
        predicted = model.predict(fewer)
    np.testing.assert_allclose(predicted, fractions, atol=1e-6)


def test_trust_in_the_genes_that_are_there_is_their_own():
    signature, bulk, fractions, far = make_bulk(12, shift_sd=0.2, n_far=6)
    model = train(signature, bulk * 1.5e3)
    keep = np.setdiff1d(np.arange(200), np.setdiff1d(np.arange(70), far))
    with pytest.warns(UserWarning, match="of the model's 200 genes"):
        predicted = model.predict(as_samples(bulk * 1.5e3)[:, keep].copy())
    plain = normalise(solve_nnls(signature[:, keep], bulk[:, keep]))
    assert rmse(predicted, fractions) <= rmse(plain, fractions) / 2
    shift = PlatformShift(model.shift_sd_, model.trust_[keep])
    expected, _ = solve(signature[:, keep], bulk[:, keep], counts=False, shift=shift)
    np.testing.assert_allclose(predicted, normalise(expected), atol=1e-9)


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
    other = solve(signature, new.X, counts=unit != "counts", shift=PlatformShift(model.shift_sd_, model.trust_))[0]
    assert np.abs(normalise(other) - model.predict(new).to_numpy()).max() > 0.01


@pytest.mark.parametrize("spike_ins", [False, True])
def test_training_does_not_look_at_the_bulk_of_left_out_donors(pairs, cohort, spike_ins):
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


def test_shift_is_learned_from_all_other_donors_bulk_only_ones_too(pairs):
    model = RobustNNLS(pairs)
    model.train(held_out=False)
    known = pairs["bulk"].obsm["measured_fractions"].notna().all(axis=1).to_numpy()
    assert not known.all()
    fewer = RobustNNLS(make_mudata({**pairs.mod, "bulk": pairs["bulk"][known].copy()}))
    fewer.train(held_out=False)
    assert not np.allclose(fewer.trust_, model.trust_, rtol=1e-3)


def test_without_any_bulk_to_learn_from_predictions_are_as_good_as_those_of_nnls(cohort, capsys, silence):
    """After holding out all donors the reference is all there is."""
    cells, bulk = cohort
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one = bulk[-1:].copy()
        training, held_out = pp.hold_out(pp.pair(cells, one), list(one.obs["donor"]))
    assert training["bulk"].n_obs == 0
    truth = one.obsm["true_fractions"]
    predicted, plain = (tl.train(training, name).predict(held_out)[truth.columns] for name in ("robust_nnls", "nnls"))
    assert rmse(predicted, truth) < 1.5 * rmse(plain, truth)


def spiked(seed, *, equal, n_samples=30, sd=0.1, n_types=4):
    """Shares of RNA, ratio of RNA to spike-ins, sizes in the reference and in truth."""
    rng = np.random.default_rng(seed)
    given = rng.uniform(1000, 8000, n_types)
    true = given * np.exp(0.3 * rng.normal(size=n_types))
    rna = rng.dirichlet(np.ones(n_types), n_samples) * true
    total = rna.sum(axis=1)
    ratio = (total if equal == "cells" else 3000.0) * np.exp(sd * rng.normal(size=n_samples)) * rng.uniform(0.01, 10)
    return rna / total[:, None], ratio, given, true


def spread(sizes, true):
    """Standard deviation of log sizes around the true ones; their common scale is nobody's business."""
    return float(np.std(np.log(sizes / true)))


def test_planted_sizes_are_recovered_where_samples_hold_equal_numbers_of_cells():
    n_learned = 0
    for seed in range(20):
        rna, ratio, given, true = spiked(seed, equal="cells", n_samples=200, sd=0)
        learned = sizes_from_spike_ins(rna, ratio, given)
        assert spread(given, true) > 0.05
        # where the given sizes are in another order than the true ones, the ratio does not follow them
        if learned is not None:
            assert spread(learned, true) < 0.005
            n_learned += 1
    assert n_learned >= 17


def test_sizes_from_noisy_ratios_are_closer_to_the_truth_on_average():
    before, after = [], []
    for seed in range(30):
        rna, ratio, given, true = spiked(seed, equal="cells", sd=0.2)
        learned = sizes_from_spike_ins(rna, ratio, given)
        before.append(spread(given, true))
        after.append(spread(given if learned is None else learned, true))
    assert np.mean(after) < 0.7 * np.mean(before)


def test_sizes_stay_near_the_given_ones_where_ratios_say_little():
    """Ratios of six samples that are off threefold: the reference's sizes are known to 35 percent."""
    found = []
    for seed in range(40):
        rna, ratio, given, _ = spiked(seed, equal="cells", n_samples=6, sd=1.0)
        learned = sizes_from_spike_ins(rna, ratio, given)
        if learned is not None:
            found.append(np.abs(np.log(learned / given)).max())
    assert found
    assert max(found) < 0.6


def test_unit_of_the_ratio_changes_nothing():
    rna, ratio, given, _ = spiked(0, equal="cells")
    expected = sizes_from_spike_ins(rna, ratio, given)
    np.testing.assert_allclose(sizes_from_spike_ins(rna, 1e5 * ratio, given), expected, rtol=1e-6)


@pytest.mark.parametrize("n_samples", [10, 30, 100])
def test_sizes_are_rarely_learned_where_samples_hold_equal_amounts_of_rna(n_samples):
    learned = [sizes_from_spike_ins(*spiked(s, equal="rna", n_samples=n_samples)[:3]) for s in range(100)]
    assert sum(sizes is not None for sizes in learned) <= 8


def test_ratio_that_falls_where_it_should_rise_teaches_nothing():
    rna, ratio, given, _ = spiked(1, equal="cells")
    assert sizes_from_spike_ins(rna, ratio, given) is not None
    assert sizes_from_spike_ins(rna, 1 / ratio, given) is None


@pytest.mark.parametrize("value", [1.0, 0.37])
def test_ratio_that_is_the_same_in_all_samples_teaches_nothing(value):
    rna, ratio, given, _ = spiked(2, equal="rna")
    assert sizes_from_spike_ins(rna, np.full_like(ratio, value), given) is None


@pytest.mark.parametrize("n_samples", [0, 1, 2])
@pytest.mark.filterwarnings("error")
def test_two_samples_are_too_few_to_learn_sizes(n_samples):
    rna, ratio, given, _ = spiked(3, equal="cells", sd=0)
    assert sizes_from_spike_ins(rna[:n_samples], ratio[:n_samples], given) is None


def test_samples_of_one_composition_teach_no_sizes():
    rna, ratio, given, _ = spiked(4, equal="cells")
    assert sizes_from_spike_ins(np.repeat(rna[:1], len(rna), axis=0), ratio, given) is None
    assert sizes_from_spike_ins(np.ones((len(rna), 1)), ratio, given[:1]) is None


FACTORS = np.array([1.8, 0.5, 1.0, 0.7])


def spiked_bulk(equal, seed=0, n_samples=40):
    """Signature, counts of bulk with spike-ins at the end, and fractions; sizes differ from those of the reference."""
    rng = np.random.default_rng(seed)
    signature = make_signature(rng)
    fractions = rng.dirichlet(np.ones(4), n_samples)
    rna = fractions @ (signature * FACTORS[:, None])
    if equal == "RNA":
        rna = rna / rna.sum(axis=1, keepdims=True) * 3000
    added = 30 * np.exp(0.1 * rng.normal(size=(n_samples, 1))) * np.ones(len(SPIKE_INS))
    bulk = np.hstack([rna, added])
    bulk = bulk / bulk.sum(axis=1, keepdims=True) * 10 ** rng.uniform(5, 6, (n_samples, 1))
    return signature, rng.poisson(bulk).astype(float), fractions


def test_spike_ins_tell_the_sizes_of_cells_where_samples_hold_equal_numbers_of_them():
    signature, bulk, fractions = spiked_bulk("cells")
    plain, spiked_model = train(signature, bulk[:, :200]), train(signature, bulk)
    before, after = (rmse(model.predict(as_samples(bulk[:, :200])), fractions) for model in (plain, spiked_model))
    assert before > 0.05
    assert after < before / 3
    assert plain.summary_ == "4 profiles, 200 genes"
    assert spiked_model.summary_ == "4 profiles, 200 genes, cell sizes from spike-ins"


def test_spike_ins_change_nothing_where_samples_hold_equal_amounts_of_rna():
    signature, bulk, _ = spiked_bulk("RNA")
    plain, spiked_model = train(signature, bulk[:, :200]), train(signature, bulk)
    new = as_samples(bulk[:, :200])
    pd.testing.assert_frame_equal(plain.predict(new), spiked_model.predict(new), check_exact=True)
    assert spiked_model.summary_ == plain.summary_


def test_samples_without_spike_ins_do_not_speak_about_sizes(silence):
    signature, bulk, fractions = spiked_bulk("cells")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        wrong, right = make_mdata(signature, bulk), make_mdata(signature, bulk)
    new, errors = as_samples(bulk[:, :200]), []
    for mdata, ratio in ((wrong, 1e9), (right, np.nan)):
        mdata["bulk"].obs.loc[["s3", "s8", "s20"], "rna_per_spike_in"] = ratio
        model = RobustNNLS(mdata)
        model.train()
        errors.append(rmse(model.predict(new), fractions))
    assert errors[1] < errors[0] / 3


def test_spike_ins_that_were_annotated_but_not_added_are_as_good_as_none(silence):
    signature, bulk, _ = spiked_bulk("cells")
    bulk[:, 200:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        mdata, plain = make_mdata(signature, bulk), train(signature, bulk[:, :200])
    model = RobustNNLS(mdata)
    model.train()
    new = as_samples(bulk[:, :200])
    pd.testing.assert_frame_equal(model.predict(new), plain.predict(new), check_exact=True)


def test_blank_sample_of_spike_ins_alone_disturbs_nothing(silence):
    signature, bulk, fractions = spiked_bulk("cells")
    bulk[7, :200] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        mdata = make_mdata(signature, bulk)
    assert mdata["bulk"].obs["rna_per_spike_in"].iloc[7] == 0
    model = RobustNNLS(mdata)
    model.train()
    assert model.summary_.endswith("cell sizes from spike-ins")
    others = np.delete(np.arange(len(bulk)), 7)
    assert rmse(model.predict(as_samples(bulk[others, :200])), fractions[others]) < 0.03


def test_type_whose_cells_are_all_held_out_gets_nothing_with_spike_ins_too(cohort):
    cells, bulk = (adata.copy() for adata in cohort)
    donor = cells.obs["donor"].astype(str)
    only = next(d for d in donor[cells.obs["cell_type"] == "Mast cell"] if d in set(bulk.obs["donor"]))
    cells = cells[(donor == only) | (cells.obs["cell_type"] != "Mast cell").to_numpy()].copy()
    mdata = pp.pair(cells, bulk)
    sizes = mdata["profiles"].obs["cell_size_umi"]
    mdata["bulk"].obs["rna_per_spike_in"] = (bulk.obsm["true_fractions"][list(sizes.index)] @ sizes).to_numpy()
    training, held_out = pp.hold_out(mdata, [only])
    predicted = tl.train(training, "robust_nnls").predict(held_out)
    assert predicted.notna().all(axis=None)
    assert predicted["Mast cell"].tolist() == [0.0]


def test_pairs_are_not_needed_and_it_is_the_default_without(cohort):
    cells, bulk = cohort
    other = bulk.copy()
    other.obs["donor"] = [f"somebody else {letter}" for letter in "ABCDEFGHIJKL"]
    with pytest.warns(UserWarning, match="Only 0 paired donors"):
        mdata = pp.pair(cells, other)
    assert isinstance(tl.train(mdata), RobustNNLS)
