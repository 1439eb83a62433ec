"""Effects on the expression of cell types against statsmodels, closed forms and planted effects."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from scdeconv._stats.shrinkage import moderate_variances
from scdeconv._stats.type_expression import interactions, weighted_fit


def make_bulk(n_samples=60, n_genes=400, noise=0.1, factor=0.0, seed=0, effect=0.0, n_types=3):
    """Return bulk, fractions, group and batch; the first 40 genes change in the first type by the factor 1 + effect."""
    rng = np.random.default_rng(seed)
    fractions = rng.dirichlet(np.full(n_types, 3.0), n_samples)
    group, batch = np.arange(n_samples) % 2.0, (np.arange(n_samples) // 2) % 2.0
    profiles = rng.gamma(2, 50, (n_types, n_genes))
    bulk = fractions @ profiles
    bulk[:, :40] += effect * np.outer(group * fractions[:, 0], profiles[0, :40])
    common = np.outer(rng.normal(size=n_samples), rng.normal(size=n_genes))
    bulk = bulk * np.exp(factor * common + noise * rng.normal(size=bulk.shape))
    return 1e6 * bulk / bulk.sum(axis=1, keepdims=True), fractions, group[:, None], batch[:, None]


def test_blocks_of_genes_do_not_change_the_fit(monkeypatch):
    data = make_bulk(n_genes=23)
    whole = interactions.fit_interactions(*data)
    monkeypatch.setattr(weighted_fit, "VALUES_PER_BLOCK", 60 * 7 * 4)
    blocks = interactions.fit_interactions(*data)
    np.testing.assert_allclose(blocks.p, whole.p)


def test_one_type_equals_the_moderated_t_test():
    """Without trend of the variance, one type with fraction 1 is bulk differential expression as in limma."""
    rng = np.random.default_rng(0)
    group = np.repeat([0.0, 1.0], 10)
    values = 1000 + rng.normal(0, 1, (20, 300)) * np.sqrt(5 / rng.chisquare(5, 300))
    ones, none = np.ones((20, 1)), np.empty((20, 0))
    fit = weighted_fit.fit_weighted(
        values,
        interactions.interaction_columns(ones, group[:, None]),
        none,
        ones,
        np.ones_like(values),
        interactions._pairs_to_test(1, 1),
    )
    pooled = (values[:10].var(axis=0, ddof=1) + values[10:].var(axis=0, ddof=1)) / 2
    variance, df = moderate_variances(pooled, 18)
    difference = values[10:].mean(axis=0) - values[:10].mean(axis=0)
    np.testing.assert_allclose(fit.variance, pooled)
    np.testing.assert_allclose(fit.coefficients[1], difference, atol=1e-9)
    found = interactions._test(fit, 1, 1, 0)
    raw = np.abs(difference) / np.sqrt(variance / 5)
    ratio = max(1, np.median(stats.norm.isf(stats.t.sf(raw, df))) / stats.norm.isf(0.25))
    np.testing.assert_allclose(found.inflation, ratio)
    np.testing.assert_allclose(found.p[0, 0], 2 * stats.t.sf(raw / ratio, df), rtol=1e-6)


def test_mean_is_that_of_a_model_without_effect():
    values, fractions, group, _ = make_bulk(n_genes=5)
    none = np.empty((60, 0))
    ones = np.ones_like(values)
    columns, pairs = interactions.interaction_columns(fractions, group), interactions._pairs_to_test(3, 1)
    fit = weighted_fit.fit_weighted(values, columns, none, ones, ones, pairs)
    found = interactions._test(fit, 3, 1, 0)
    centred = group - group.mean()
    for kind in range(3):
        design = np.hstack([fractions, np.delete(fractions * centred, kind, axis=1)])
        expected = np.linalg.lstsq(design, values, rcond=None)[0][kind]
        np.testing.assert_allclose(found.mean[0, kind], expected, rtol=1e-6)


def test_prior_applies_to_other_effects_only():
    """The estimate equals least squares with one more observation for each other effect: 0, with the prior variance."""
    rng = np.random.default_rng(0)
    design, target, prior = rng.normal(size=(30, 4)), rng.normal(size=30), rng.gamma(2, 0.05, 4)
    covariance = 0.5 * np.linalg.inv(design.T @ design)
    effect = 2 * covariance @ design.T @ target
    estimate, variance = interactions.shrink_other_effects(effect[None], covariance[None], prior[None])
    for number in range(4):
        others = np.delete(np.eye(4), number, axis=0)
        rows, values = np.vstack([design, others]), np.concatenate([target, np.zeros(3)])
        weights = np.concatenate([np.full(30, 2.0), 1 / np.delete(prior, number)])
        fit = sm.WLS(values, rows, weights=weights).fit()
        np.testing.assert_allclose(estimate[0, number], fit.params[number])
        np.testing.assert_allclose(variance[0, number], fit.normalized_cov_params[number, number])


def test_noise_free_effects_are_recovered():
    values, fractions, group, batch = make_bulk(noise=0, effect=1.0)
    raw = values / values[:, 40:].sum(axis=1, keepdims=True)
    found = interactions.fit_interactions(raw, fractions, group, batch, 0)
    assert (found.effect[0, 0, :40] / found.mean[0, 0, :40]).mean() == pytest.approx(2 / 3, rel=0.1)


@pytest.mark.parametrize("factor", [0.0, 0.3])
def test_null_p_values_are_uniform(factor):
    shares = []
    for seed in range(10):
        found = interactions.fit_interactions(*make_bulk(factor=factor, seed=seed))
        assert (found.n_factors > 0) == (factor > 0)
        shares.append(np.nanmean(found.p < 0.05))
    assert 0.03 < np.mean(shares) < 0.055


def test_factor_that_follows_the_group_is_removed():
    """A factor with higher scores in one group changes all genes. Only the planted genes differ beyond it."""
    values, fractions, group, batch = make_bulk(effect=2.0, noise=0.05)
    rng = np.random.default_rng(5)
    scores = group[:, 0] + rng.normal(size=60)
    values = values * np.exp(0.2 * np.outer(scores, rng.normal(size=400)))
    found = interactions.fit_interactions(values, fractions, group, batch)
    plain = interactions.fit_interactions(values, fractions, group, batch, 0)
    for result, most in ((found, 0.1), (plain, 1.0)):
        false = (result.p[0, 0, 40:] < 0.001).sum()
        true = (result.p[0, 0, :40] < 0.001).sum()
        assert false <= most * max(true, 1)
    assert (found.p[0, 0, :40] < 0.001).mean() > 0.9 > (plain.p[0, 0, :40] < 0.001).mean() + 0.1


def test_scale_of_samples_does_not_matter():
    """Hundredfold expression of one gene in half of the samples lowers the share of all others."""
    raw, fractions, group, batch = make_bulk(noise=0.05)
    changed = raw.copy()
    changed[group[:, 0] == 1, 0] *= 100
    expected, found = (interactions.normalise(values, fractions)[0][:, 1:] for values in (raw, changed))
    np.testing.assert_allclose(found / found.mean(), expected / expected.mean(), rtol=0.05)
    p = interactions.fit_interactions(changed, fractions, group, batch, 0).p
    assert np.nanmean(p[:, :, 1:] < 0.05) < 0.1


def test_batches_are_removed_as_factors_of_genes():
    values, fractions, group, batch = make_bulk(noise=0.05)
    shifts = np.random.default_rng(3).normal(0, 0.5, 400)
    shifted = values * np.exp(batch * shifts)
    with_batch = interactions.fit_interactions(shifted, fractions, group, batch, 0)
    without = interactions.fit_interactions(shifted, fractions, group, batch[:, :0], 0)
    assert np.nanmedian(with_batch.standard_error) < 0.4 * np.nanmedian(without.standard_error)


def test_inflation_equals_that_of_statsmodels():
    _, fractions, group, batch = make_bulk()
    found = interactions.variance_inflation(fractions, group, batch)
    design = np.hstack([interactions.interaction_columns(fractions, group), batch])
    expected = [1 / (1 - sm.OLS(design[:, k], np.delete(design, k, axis=1)).fit().rsquared) for k in (3, 4, 5)]
    np.testing.assert_allclose(found[0], expected)


def test_duplicated_type_has_infinite_inflation():
    _, fractions, group, batch = make_bulk()
    halves = np.hstack([fractions[:, :2], fractions[:, 2:] / 2, fractions[:, 2:] / 2])
    found = interactions.variance_inflation(halves, group, batch)[0]
    assert np.isfinite(found[:2]).all()
    assert np.isinf(found[2:]).all()


def test_needed_samples_give_the_stated_power():
    """At the returned number of samples, about 80 % of the genes reach p < 0.001."""
    values, fractions, group, batch = make_bulk(n_samples=40, noise=0.3)
    found = interactions.fit_interactions(values, fractions, group, batch, 0)
    needed = int(interactions.samples_needed(found, 40, 3.0)[0, 0])
    assert 40 < needed < 400
    shares = []
    for seed in (1, 2, 3):
        larger = interactions.fit_interactions(*make_bulk(needed, noise=0.3, effect=2.0, seed=seed), 0)
        shares.append((larger.p[0, 0, :40] < 0.001).mean())
    assert 0.4 < np.mean(shares) < 0.95
