from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from scdeconv._stats.markers import (
    best_depth,
    condition_number,
    fold_changes,
    moderated_scores,
    moderated_t,
)
from scdeconv._stats.shrinkage import moderate_variances


def adjust(p_values):
    """Benjamini-Hochberg by definition: the smallest rate at which the step-up procedure rejects."""
    n, ordered = len(p_values), sorted(p_values)
    return [min([1.0, *(n * q / rank for rank, q in enumerate(ordered, 1) if q >= p)]) for p in p_values]


@pytest.fixture
def table():
    """Pseudobulk of 4 donors (by 3 types, two missing) and 30 genes, with effects of donors and types."""
    rng = np.random.default_rng(0)
    donor, cell_type = np.divmod(np.delete(np.arange(12), [4, 11]), 3)
    values = rng.normal(size=(4, 30))[donor] + rng.normal(size=(3, 30))[cell_type]
    return values + rng.normal(0, 0.4, values.shape) * rng.gamma(4, 0.25, 30), cell_type, donor


def gene_by_gene(values, cell_type, donor, kind, *, by_donor=True):
    """Effects against each other type and their t without moderation, by least squares of every single gene."""
    columns = [cell_type == other for other in range(3) if other != kind]
    columns += [donor == d for d in range(1, donor.max() + 1)] if by_donor else []
    design = np.column_stack([np.ones(len(values)), *columns]).astype(float)
    df = len(values) - design.shape[1]
    for gene in values.T:
        effects, rss = np.linalg.lstsq(design, gene, rcond=None)[:2]
        yield -effects[1:3], np.linalg.inv(design.T @ design).diagonal()[1:3] ** 0.5, rss[0] / df, df


@pytest.mark.parametrize("by_donor", [True, False])
def test_statistic_is_moderated_t_against_closest_type(table, by_donor):
    values, cell_type, donor = table
    if not by_donor:
        # every donor has only one type, so the design does not connect the types
        donor = cell_type * 4 + donor
        donor = np.unique(donor, return_inverse=True)[1]
    statistic, p, found = moderated_t(values, cell_type, donor)
    assert found == by_donor
    for kind in range(3):
        fits = list(gene_by_gene(values, cell_type, donor, kind, by_donor=by_donor))
        df = fits[0][3]
        assert df == (4 if by_donor else 7)
        posterior, df_total = moderate_variances(np.array([fit[2] for fit in fits]), df)
        expected = [min(fit[0] / fit[1] / s**0.5) for fit, s in zip(fits, posterior, strict=True)]
        np.testing.assert_allclose(statistic[kind], expected, rtol=1e-8)
        np.testing.assert_allclose(p[kind], [stats.t.sf(t, df_total) for t in expected], rtol=1e-8)


def test_without_a_prior_the_t_is_ordinary(table, monkeypatch):
    values, cell_type, _ = table
    monkeypatch.setattr("scdeconv._stats.shrinkage.fit_variance_prior", lambda *_: (0.0, 0.0))
    rows = cell_type < 2
    statistic, p, by_donor = moderated_t(values[rows], cell_type[rows], np.arange(rows.sum()))
    assert not by_donor
    expected = stats.ttest_ind(values[cell_type == 0], values[cell_type == 1], alternative="greater")
    np.testing.assert_allclose(statistic, [expected.statistic, -expected.statistic])
    np.testing.assert_allclose(p[0], expected.pvalue)


def test_genes_without_donor_variance_can_be_markers():
    values = np.array([[5.0, 1.0], [5.0, 1.0], [2.0, 1.0], [2.0, 1.0]])
    with np.errstate(all="raise"):
        _, p, _ = moderated_t(values, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]))
    assert p[0, 0] == 0
    assert p[0, 1] == 0.5


def test_donor_differences_give_few_false_markers():
    rng = np.random.default_rng(0)
    donor, cell_type = np.divmod(np.arange(24), 4)
    share = rng.dirichlet(np.full(1500, 0.5)) * np.exp(rng.normal(0, 0.3, (24, 1500)))
    counts = rng.poisson(50_000 * share)
    scores, _ = moderated_scores(counts, counts.sum(axis=1), cell_type, donor, 0.05)
    assert np.isfinite(scores).sum() <= 2


def test_markers_do_not_depend_on_pseudobulk_depth():
    rng = np.random.default_rng(0)
    donor, cell_type = np.divmod(np.arange(15), 3)
    share = rng.gamma(2, 1, 200) * np.exp(rng.normal(0, 0.2, (15, 200)))
    for kind in range(3):
        share[cell_type == kind, 10 * kind : 10 * kind + 10] *= 6
    share[:, 199] = 0
    depth = np.exp(rng.normal(10.5, 0.5, 15))
    counts = rng.poisson(depth[:, None] * share / share.sum(axis=1, keepdims=True))
    scores, by_donor = moderated_scores(counts, counts.sum(axis=1), cell_type, donor, 0.05)
    assert by_donor
    for kind in range(3):
        found = set(np.flatnonzero(np.isfinite(scores[kind])))
        assert set(range(10 * kind, 10 * kind + 10)) <= found
        assert len(found) <= 12
    again, _ = moderated_scores(counts * 7.0, counts.sum(axis=1) * 7, cell_type, donor, 0.05)
    assert (np.isfinite(again[:, :30]) == np.isfinite(scores[:, :30])).all()


def test_genes_of_few_counts_are_not_tested():
    counts = np.zeros((4, 3))
    counts[:2, 0], counts[:2, 1], counts[:, 2] = 9, [10, 11], 1000
    totals = np.full(4, 1e4)
    scores, _ = moderated_scores(counts, totals, np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), 0.99)
    assert np.isfinite(scores).tolist() == [[False, True, False], [False, False, False]]
    assert not np.isfinite(moderated_scores(counts * 0, totals, np.arange(4) // 2, np.arange(4) % 2, 0.99)[0]).any()


@pytest.mark.parametrize("fraction", [0.0, 0.6])
def test_fold_changes_equal_a_loop_over_genes(fraction):
    rng = np.random.default_rng(0)
    profiles, expressed = rng.gamma(0.7, 2, (3, 60)), rng.uniform(size=(3, 60))
    kinds = np.arange(15) // 5
    cpm = 1e4 * rng.poisson(20 * profiles[kinds])
    cpm[:, 7] = 0
    scores = fold_changes(cpm, kinds, expressed, fraction=fraction, q_value=0.01)
    tested = [gene for gene in range(60) if gene != 7]
    for kind in range(3):
        mine = kinds == kind
        p = [
            stats.ttest_ind(np.log2(cpm[mine, gene] + 1), np.log2(cpm[~mine, gene] + 1), equal_var=False).pvalue
            for gene in tested
        ]
        expected = np.full(60, -np.inf)
        for gene, q in zip(tested, adjust(p), strict=True):
            change = math.log2((cpm[mine, gene].mean() + 1) / (cpm[~mine, gene].mean() + 1))
            if q < 0.01 and change > 0 and expressed[kind, gene] >= fraction:
                expected[gene] = change
        assert np.isfinite(expected).sum() > 3
        np.testing.assert_allclose(scores[kind], expected)


def test_condition_number_equals_numpy():
    assert condition_number(np.array([[2.0, 0, 0], [0, 0.5, 0]])) == pytest.approx(4)
    assert condition_number(np.array([[1.0, 2, 3], [2, 4, 6]])) > 1e15
    assert condition_number(np.ones((3, 2))) == np.inf


def test_chosen_depth_minimises_the_condition_number():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        profiles, scores = rng.gamma(0.3, 1, (4, 80)), rng.normal(size=(4, 80))
        scores[rng.random((4, 80)) < 0.4] = -np.inf
        brute = {}
        for depth in range(3, 41):
            union = set()
            for row in scores:
                ranked = sorted((gene for gene in range(80) if np.isfinite(row[gene])), key=lambda gene: -row[gene])
                union |= set(ranked[:depth])
            brute[depth] = np.linalg.cond(profiles[:, sorted(union)]), union
        depth, mask = best_depth(scores, profiles, range(3, 41))
        assert brute[depth][0] == pytest.approx(min(number for number, _ in brute.values()))
        assert set(np.flatnonzero(mask)) == brute[depth][1]
