from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scdeconv import pp
from scdeconv.pp._augment import subsample_fractions

COUNTS = np.array([57, 23, 0, 9, 1])


def brute_force(counts, n_aug, aug_ratio, rng):
    """Shuffle the cells, take the first ``m``, count their types."""
    cells = np.repeat(np.arange(len(counts)), counts)
    size = max(1, int(np.floor(aug_ratio * len(cells))))
    return np.array([np.bincount(rng.permutation(cells)[:size], minlength=len(counts)) / size for _ in range(n_aug)])


def test_mean_and_covariance_are_those_of_sampling_without_replacement():
    n, n_cells, size = 200_000, COUNTS.sum(), 36
    drawn = subsample_fractions(COUNTS, n, 0.4, np.random.default_rng(0)).astype(float)
    p = COUNTS / n_cells
    covariance = (np.diag(p) - np.outer(p, p)) / size * (n_cells - size) / (n_cells - 1)
    deviation = np.sqrt(np.diag(covariance))
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - p), 5 * deviation / np.sqrt(n) + 1e-9)
    # a sample covariance of n draws has a standard error of about sd_i * sd_j * sqrt(2 / n)
    error = np.outer(deviation, deviation) * np.sqrt(2 / n)
    np.testing.assert_array_less(np.abs(np.cov(drawn.T) - covariance), 6 * error + 1e-12)


@pytest.mark.parametrize("aug_ratio", [0.05, 0.4, 0.9])
def test_every_marginal_is_hypergeometric(aug_ratio):
    n, n_cells = 20_000, COUNTS.sum()
    size = int(aug_ratio * n_cells)
    drawn = np.rint(subsample_fractions(COUNTS, n, aug_ratio, np.random.default_rng(1)) * size).astype(int)
    for k, count in enumerate(COUNTS):
        expected = n * stats.hypergeom(n_cells, count, size).pmf(np.arange(size + 1))
        observed = np.bincount(drawn[:, k], minlength=size + 1)
        assert not observed[expected == 0].any()
        common = expected >= 5
        rest = np.array([observed[~common].sum(), expected[~common].sum()])
        if common.sum() > 1:
            statistic = ((observed - expected)[common] ** 2 / expected[common]).sum() + (rest[0] - rest[1]) ** 2 / max(
                rest[1], 1
            )
            assert stats.chi2.sf(statistic, common.sum()) > 1e-4


def test_joint_distribution_is_that_of_brute_force_subsampling():
    counts, n = np.array([4, 3, 2]), 20_000
    ours = subsample_fractions(counts, n, 0.5, np.random.default_rng(2))
    theirs = brute_force(counts, n, 0.5, np.random.default_rng(3))
    table = pd.concat(
        [pd.DataFrame(np.rint(drawn * 4).astype(int)).value_counts() for drawn in (ours, theirs)], axis=1
    ).fillna(0)
    # all ways to take 4 of 4 + 3 + 2 cells, and no other
    assert len(table) == sum(1 for a in range(5) for b in range(4) for c in range(3) if a + b + c == 4)
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_draws_follow_brute_force_subsampling_of_a_larger_donor():
    ours = subsample_fractions(COUNTS, 4000, 0.8, np.random.default_rng(4))
    theirs = brute_force(COUNTS, 4000, 0.8, np.random.default_rng(5)).astype(np.float32)
    for k in (0, 1, 3):
        assert stats.ks_2samp(ours[:, k], theirs[:, k]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("n_cells", "aug_ratio", "size"),
    [(10, 0.8, 8), (10, 0.75, 7), (10, 0.79, 7), (10, 0.05, 1), (1, 0.5, 1), (7, 1, 7)],
)
def test_a_subset_holds_the_floor_of_the_share_and_at_least_one_cell(n_cells, aug_ratio, size):
    counts = np.array([n_cells - n_cells // 2, n_cells // 2])
    cells = subsample_fractions(counts, 200, aug_ratio, np.random.default_rng(0)) * size
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-5)
    assert (np.rint(cells).sum(axis=1) == size).all()
    assert (np.rint(cells) <= counts).all()


def test_every_paired_sample_gets_its_own_draws_and_others_nan(make_inputs):
    mdata = pp.pair(*make_inputs(bulk_donors=("D1", "B1", "D2", "D1", "D3")))
    before = mdata["bulk"].X.copy()
    pp.augment(mdata, n_aug=12, aug_ratio=0.6)
    augmented = mdata["bulk"].obsm["augmented_fractions"]
    assert augmented.shape == (5, 12, 3)
    assert augmented.dtype == np.float32
    assert np.isnan(augmented[1]).all()
    known = augmented[[0, 2, 3, 4]]
    np.testing.assert_allclose(known.sum(axis=-1), 1, rtol=1e-6)
    np.testing.assert_allclose(known * 15, np.rint(known * 15), atol=1e-5)
    # the first donor has no cell of the last type
    assert (augmented[[0, 3], :, 2] == 0).all()
    assert not np.array_equal(augmented[0], augmented[3])
    np.testing.assert_array_equal(mdata["bulk"].X, before)
    assert mdata.uns["scdeconv"]["augment"] == {"n_aug": 12, "aug_ratio": 0.6, "seed": 0}


def test_all_cells_give_the_measured_composition(mdata):
    pp.augment(mdata, n_aug=2, aug_ratio=1.0)
    expected = mdata["bulk"].obsm["measured_fractions"].to_numpy()
    for draw in range(2):
        np.testing.assert_allclose(mdata["bulk"].obsm["augmented_fractions"][:, draw], expected, rtol=1e-6)


def test_same_seed_same_draws_and_global_state_untouched(mdata):
    state = np.random.get_state()[1].copy()
    draws = []
    for seed in (5, 5, 6):
        pp.augment(mdata, n_aug=10, seed=seed)
        draws.append(mdata["bulk"].obsm["augmented_fractions"])
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2], equal_nan=True)
    assert np.array_equal(state, np.random.get_state()[1])


def test_fractions_without_counted_cells_cannot_be_augmented(reference_inputs):
    mdata = pp.pair(**reference_inputs)
    with pytest.raises(KeyError, match="number of cells of each type.*measured_cells.*found none.*pair with cells"):
        pp.augment(mdata)
    assert "augmented_fractions" not in mdata["bulk"].obsm


@pytest.mark.parametrize(("n_aug", "aug_ratio"), [(0, 0.8), (10, 0.0), (10, -0.1), (10, 1.1), (10, np.nan)])
def test_arguments_out_of_range_are_refused(mdata, n_aug, aug_ratio):
    with pytest.raises(ValueError, match=rf"n_aug of at least 1 and aug_ratio .* found {n_aug} and {aug_ratio}\."):
        pp.augment(mdata, n_aug, aug_ratio)
