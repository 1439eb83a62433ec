from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from scdeconv._stats.markers import (
    best_depth,
    condition_number,
    fit_variance_prior,
    fold_changes,
    moderate_variances,
    moderated_scores,
    moderated_t,
    trigamma_inverse,
)


def adjust(p_values):
    """Benjamini-Hochberg by definition: the smallest rate at which the step-up procedure rejects."""
    n, ordered = len(p_values), sorted(p_values)
    return [min([1.0, *(n * q / rank for rank, q in enumerate(ordered, 1) if q >= p)]) for p in p_values]


@pytest.mark.parametrize("y", [1e-9, 1e-4, 0.02, 0.5, 1.0, 3.7, 50.0, 1e4, 1e9])
def test_trigamma_inverse_is_the_inverse(y):
    assert trigamma_inverse(float(polygamma(1, y))) == pytest.approx(y, rel=1e-6)


def slow_prior(variance, df):
    """Smyth 2004, section 6.2, one gene after the other, the equation of d0 solved by bisection."""
    smallest = 1e-5 * sorted(variance)[len(variance) // 2]
    variance = [max(s, smallest) for s in variance]
    e = [math.log(s) - digamma(df / 2) + math.log(df / 2) for s in variance]
    mean, n = sum(e) / len(e), len(e)
    target = sum((x - mean) ** 2 * n / (n - 1) - polygamma(1, df / 2) for x in e) / n
    d0 = 2 * brentq(lambda half: polygamma(1, half) - target, 1e-6, 1e9, xtol=1e-12, rtol=1e-14)
    return d0, math.exp(mean + digamma(d0 / 2) - math.log(d0 / 2))


@pytest.mark.parametrize("df", [1, 4, 30])
def test_moderated_variances_equal_a_plain_implementation(df):
    rng = np.random.default_rng(df)
    variance = 0.3 * 5 / rng.chisquare(5, 2001) * rng.chisquare(df, 2001) / df
    d0, s0 = slow_prior(variance.tolist(), df)
    assert fit_variance_prior(variance, df) == pytest.approx((d0, s0), rel=1e-6)
    posterior, df_total = moderate_variances(variance, df)
    np.testing.assert_allclose(posterior, [(d0 * s0 + df * s) / (d0 + df) for s in variance], rtol=1e-6)
    assert df_total == pytest.approx(d0 + df, rel=1e-6)


def test_planted_prior_is_recovered():
    rng = np.random.default_rng(0)
    variance = 0.3 * 6 / rng.chisquare(6, 40_000) * rng.chisquare(8, 40_000) / 8
    d0, s0 = fit_variance_prior(variance, 8)
    assert d0 == pytest.approx(6, rel=0.05)
    assert s0 == pytest.approx(0.3, rel=0.02)


def test_homogeneous_variances_are_fully_pooled():
    equal = np.full(50, 0.7)
    posterior, df_total = moderate_variances(equal, 5)
    assert df_total == np.inf
    np.testing.assert_allclose(posterior, equal)


def test_precise_variances_are_not_shrunk():
    variance = np.random.default_rng(0).gamma(2, 1, 300)
    posterior, df_total = moderate_variances(variance, 1e7)
    assert df_total == pytest.approx(1e7, rel=1e-5)
    np.testing.assert_allclose(posterior, variance, rtol=1e-4)


@pytest.mark.parametrize("variance", [np.array([0.3]), np.array([]), np.zeros(5), np.array([0, 0, 0, 1.0])])
def test_without_variances_there_is_no_prior(variance):
    posterior, df_total = moderate_variances(variance, 3)
    assert df_total == 3
    np.testing.assert_array_equal(posterior, variance)


def test_one_gene_without_variance_is_not_enough():
    variance = 0.3 * np.random.default_rng(0).chisquare(5, 500) / 5
    with_zero = fit_variance_prior(np.r_[variance, 0.0], 5)
    assert np.isfinite(with_zero).all()
    assert with_zero[1] == pytest.approx(variance.mean(), rel=0.1)
    assert (moderate_variances(np.r_[variance, 0.0], 5)[0] > 0).all()


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
    monkeypatch.setattr("scdeconv._stats.markers.fit_variance_prior", lambda *_: (0.0, 0.0))
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
