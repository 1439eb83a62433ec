"""Cell sizes of RobustNNLS from spike-ins."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from robust_nnls_data import SPIKE_INS, as_samples, make_mdata, make_signature, rmse, train

from scdeconv import pp, tl
from scdeconv._stats.solvers.spike_in_sizes import sizes_from_spike_ins
from scdeconv.models import RobustNNLS


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
    """Standard deviation of log sizes around the true ones; their common scale does not matter."""
    return float(np.std(np.log(sizes / true)))


def test_planted_sizes_are_recovered():
    n_learned = 0
    for seed in range(20):
        rna, ratio, given, true = spiked(seed, equal="cells", n_samples=200, sd=0)
        learned = sizes_from_spike_ins(rna, ratio, given)
        assert spread(given, true) > 0.05
        # if given and true sizes have different orders, the ratio does not correlate with the given sizes
        if learned is not None:
            assert spread(learned, true) < 0.005
            n_learned += 1
    assert n_learned >= 17


def test_noisy_ratios_improve_sizes_on_average():
    before, after = [], []
    for seed in range(30):
        rna, ratio, given, true = spiked(seed, equal="cells", sd=0.2)
        learned = sizes_from_spike_ins(rna, ratio, given)
        before.append(spread(given, true))
        after.append(spread(given if learned is None else learned, true))
    assert np.mean(after) < 0.7 * np.mean(before)


def test_uninformative_ratios_leave_sizes_near_the_reference():
    """Ratios of six samples with threefold errors; the prior standard deviation of the sizes is 35 percent."""
    found = []
    for seed in range(40):
        rna, ratio, given, _ = spiked(seed, equal="cells", n_samples=6, sd=1.0)
        learned = sizes_from_spike_ins(rna, ratio, given)
        if learned is not None:
            found.append(np.abs(np.log(learned / given)).max())
    assert found
    assert max(found) < 0.6


def test_unit_of_the_ratio_does_not_matter():
    rna, ratio, given, _ = spiked(0, equal="cells")
    expected = sizes_from_spike_ins(rna, ratio, given)
    np.testing.assert_allclose(sizes_from_spike_ins(rna, 1e5 * ratio, given), expected, rtol=1e-6)


@pytest.mark.parametrize("n_samples", [10, 30, 100])
def test_equal_rna_rarely_changes_sizes(n_samples):
    learned = [sizes_from_spike_ins(*spiked(s, equal="rna", n_samples=n_samples)[:3]) for s in range(100)]
    assert sum(sizes is not None for sizes in learned) <= 8


def test_inverted_ratio_does_not_change_sizes():
    rna, ratio, given, _ = spiked(1, equal="cells")
    assert sizes_from_spike_ins(rna, ratio, given) is not None
    assert sizes_from_spike_ins(rna, 1 / ratio, given) is None


@pytest.mark.parametrize("value", [1.0, 0.37])
def test_constant_ratio_does_not_change_sizes(value):
    rna, ratio, given, _ = spiked(2, equal="rna")
    assert sizes_from_spike_ins(rna, np.full_like(ratio, value), given) is None


@pytest.mark.parametrize("n_samples", [0, 1, 2])
@pytest.mark.filterwarnings("error")
def test_two_samples_are_too_few_to_learn_sizes(n_samples):
    rna, ratio, given, _ = spiked(3, equal="cells", sd=0)
    assert sizes_from_spike_ins(rna[:n_samples], ratio[:n_samples], given) is None


def test_equal_compositions_do_not_change_sizes():
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


def test_spike_ins_improve_fractions_for_equal_cell_numbers():
    signature, bulk, fractions = spiked_bulk("cells")
    plain, spiked_model = train(signature, bulk[:, :200]), train(signature, bulk)
    before, after = (rmse(model.predict(as_samples(bulk[:, :200])), fractions) for model in (plain, spiked_model))
    assert before > 0.05
    assert after < before / 3
    assert plain.summary_ == "4 profiles, 200 genes"
    assert spiked_model.summary_ == "4 profiles, 200 genes, cell sizes from spike-ins"


def test_spike_ins_do_not_matter_for_equal_rna():
    signature, bulk, _ = spiked_bulk("RNA")
    plain, spiked_model = train(signature, bulk[:, :200]), train(signature, bulk)
    new = as_samples(bulk[:, :200])
    pd.testing.assert_frame_equal(plain.predict(new), spiked_model.predict(new), check_exact=True)
    assert spiked_model.summary_ == plain.summary_


def test_samples_without_spike_ins_do_not_change_sizes(silence):
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


def test_spike_ins_without_counts_are_ignored(silence):
    signature, bulk, _ = spiked_bulk("cells")
    bulk[:, 200:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        mdata, plain = make_mdata(signature, bulk), train(signature, bulk[:, :200])
    model = RobustNNLS(mdata)
    model.train()
    new = as_samples(bulk[:, :200])
    pd.testing.assert_frame_equal(model.predict(new), plain.predict(new), check_exact=True)


def test_sample_of_spike_ins_alone_is_ignored(silence):
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


def test_type_without_remaining_cells_is_zero(cohort):
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
