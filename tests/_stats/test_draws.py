from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from scdeconv._stats.draws import draw_cells, draw_fractions, draw_replicates, round_to_cells, subsample_fractions

COUNTS = np.array([57, 23, 0, 9, 1])


def normalised_uniform_of_two(x):
    """Distribution function of u / (u + v), u and v uniform."""
    x = np.clip(x, 1e-12, 1 - 1e-12)
    return np.where(x < 0.5, x / (2 * (1 - x)), 1 - (1 - x) / (2 * x))


def scaden_fractions(n_types, sparse, rng):
    """One composition as in the original's ``create_fractions`` and ``create_sparse_subsample``."""
    kept = list(range(n_types))
    if sparse:
        kept = list(rng.choice(kept, size=rng.integers(1, n_types), replace=False))
    uniforms = [rng.random() for _ in kept]
    fractions = [0.0] * n_types
    for kind, value in zip(kept, uniforms, strict=True):
        fractions[kind] = value / sum(uniforms)
    return fractions


def test_two_types_have_normalised_uniform_fractions():
    drawn = draw_fractions(20_000, 0, np.ones(2, bool), np.random.default_rng(0))
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    assert stats.kstest(drawn[:, 0], normalised_uniform_of_two).pvalue > 1e-4


@pytest.mark.parametrize("sparse", [False, True])
def test_fractions_have_the_distribution_of_scaden(sparse):
    n = 6000
    ours = draw_fractions(0 if sparse else n, n if sparse else 0, np.ones(4, bool), np.random.default_rng(1))
    rng = np.random.default_rng(2)
    theirs = np.array([scaden_fractions(4, sparse, rng) for _ in range(n)])
    for kind in range(4):
        assert stats.ks_2samp(ours[:, kind], theirs[:, kind]).pvalue > 1e-4
    assert stats.ks_2samp(ours.max(axis=1), theirs.max(axis=1)).pvalue > 1e-4
    # closer to equal shares than a flat Dirichlet, whose variance is 3 / 80 for four types
    if not sparse:
        assert ours.var(axis=0).max() < 0.8 * 3 / 80


def test_sparse_samples_draw_type_subsets_uniformly():
    n, n_types = 30_000, 5
    drawn = draw_fractions(0, n, np.ones(n_types, bool), np.random.default_rng(3))
    kept = drawn > 0
    n_kept = np.bincount(kept.sum(axis=1), minlength=n_types + 1)
    assert n_kept[0] == n_kept[n_types] == 0
    assert stats.chisquare(n_kept[1:n_types]).pvalue > 1e-4
    for size in range(1, n_types):
        subsets = Counter(tuple(np.flatnonzero(row)) for row in kept[kept.sum(axis=1) == size])
        every = list(combinations(range(n_types), size))
        assert set(subsets) <= set(every)
        assert stats.chisquare([subsets[subset] for subset in every]).pvalue > 1e-4
    np.testing.assert_allclose(drawn.sum(axis=1), 1)


def test_normal_samples_come_first_with_every_type():
    drawn = draw_fractions(300, 200, np.ones(3, bool), np.random.default_rng(4))
    assert (drawn[:300] > 0).all()
    assert (drawn[300:] == 0).any(axis=1).all()


def test_only_available_types_are_drawn():
    drawn = draw_fractions(50, 50, np.array([True, False, True, True]), np.random.default_rng(5))
    assert (drawn[:, 1] == 0).all()
    assert (drawn[:50][:, [0, 2, 3]] > 0).all()
    assert (draw_fractions(3, 3, np.array([False, True]), np.random.default_rng(5)) == [0, 1]).all()


def test_weights_sum_to_the_requested_cells():
    rng = np.random.default_rng(0)
    pools = [np.array([4, 1, 9]), np.array([], int), np.array([0]), np.array([2, 3, 7, 8])]
    n_cells = rng.integers(0, 30, (25, 4)) * [1, 0, 1, 1]
    n_cells[3] = 0
    weights = draw_cells(n_cells, pools, 11, rng)
    assert weights.shape == (25, 11)
    assert weights.has_canonical_format
    weights = weights.toarray()
    for kind, pool in enumerate(pools):
        np.testing.assert_array_equal(weights[:, pool].sum(axis=1), n_cells[:, kind])
    assert (weights[:, [5, 6, 10]] == 0).all()
    np.testing.assert_array_equal(weights, np.rint(weights))


def test_cells_are_drawn_equally_often_with_replacement():
    weights = draw_cells(np.full((4000, 1), 20), [np.arange(3, 11)], 12, np.random.default_rng(1)).toarray()[:, 3:11]
    assert stats.chisquare(weights.sum(axis=0)).pvalue > 1e-4
    # with replacement: the number of times that a cell is drawn is binomial
    observed = np.bincount(weights[:, 0].astype(int), minlength=21)[:7]
    expected = 4000 * stats.binom(20, 1 / 8).pmf(np.arange(7))
    assert stats.chisquare([*observed, 4000 - observed.sum()], [*expected, 4000 - expected.sum()]).pvalue > 1e-4


def test_numbers_of_cells_are_rounded_down():
    fractions = np.array([[0.5, 0.29, 0.21], [1.0, 0.0, 0.0]])
    assert round_to_cells(fractions, 10).tolist() == [[5, 2, 2], [10, 0, 0]]


def test_empty_sample_gets_its_most_frequent_type():
    assert round_to_cells(np.array([[0.3, 0.4, 0.3]]), 2).tolist() == [[0, 1, 0]]


@pytest.mark.parametrize("sampling", [0.5, 0.3, 0.01, 0.99])
def test_replicates_contain_each_cell_at_most_once(sampling):
    codes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [3, 20, 40]))
    rows = draw_replicates(codes, 4, sampling, seed=1)
    assert rows.shape == (12, 63)
    dense = rows.toarray()
    assert set(np.unique(dense)) == {0, 1}
    for row, drawn in enumerate(dense):
        assert drawn.sum() == min(math.ceil(sampling * np.bincount(codes)[row // 4]), np.bincount(codes)[row // 4] - 1)
        assert set(codes[drawn == 1]) == {row // 4}
    assert (draw_replicates(codes, 4, sampling, seed=1) != rows).nnz == 0
    assert (draw_replicates(codes, 4, sampling, seed=2) != rows).nnz > 0


def brute_force(counts, n_aug, aug_ratio, rng):
    """Shuffle the cells, take the first ``m``, count their types."""
    cells = np.repeat(np.arange(len(counts)), counts)
    size = max(1, int(np.floor(aug_ratio * len(cells))))
    return np.array([np.bincount(rng.permutation(cells)[:size], minlength=len(counts)) / size for _ in range(n_aug)])


def test_moments_equal_sampling_without_replacement():
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


def test_joint_distribution_equals_brute_force_subsampling():
    counts, n = np.array([4, 3, 2]), 20_000
    ours = subsample_fractions(counts, n, 0.5, np.random.default_rng(2))
    theirs = brute_force(counts, n, 0.5, np.random.default_rng(3))
    table = pd.concat(
        [pd.DataFrame(np.rint(drawn * 4).astype(int)).value_counts() for drawn in (ours, theirs)], axis=1
    ).fillna(0)
    # all ways to draw 4 of 4 + 3 + 2 cells
    assert len(table) == sum(1 for a in range(5) for b in range(4) for c in range(3) if a + b + c == 4)
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_larger_donors_equal_brute_force_subsampling():
    ours = subsample_fractions(COUNTS, 4000, 0.8, np.random.default_rng(4))
    theirs = brute_force(COUNTS, 4000, 0.8, np.random.default_rng(5)).astype(np.float32)
    for k in (0, 1, 3):
        assert stats.ks_2samp(ours[:, k], theirs[:, k]).pvalue > 1e-4


@pytest.mark.parametrize(
    ("n_cells", "aug_ratio", "size"),
    [(10, 0.8, 8), (10, 0.75, 7), (10, 0.79, 7), (10, 0.05, 1), (1, 0.5, 1), (7, 1, 7)],
)
def test_subset_size_is_floored_but_positive(n_cells, aug_ratio, size):
    counts = np.array([n_cells - n_cells // 2, n_cells // 2])
    cells = subsample_fractions(counts, 200, aug_ratio, np.random.default_rng(0)) * size
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-5)
    assert (np.rint(cells).sum(axis=1) == size).all()
    assert (np.rint(cells) <= counts).all()
