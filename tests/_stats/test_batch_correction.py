"""ComBat against a plain version of it, and signatures from corrected mixtures."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from scdeconv._stats import batch_correction as correction


def plain_combat(batches):
    """Johnson et al. 2007, gene by gene, on log expression; a list of arrays samples × genes."""
    everything = np.vstack(batches)
    grand = sum(len(batch) / len(everything) * batch.mean(axis=0) for batch in batches)
    pooled = np.sqrt(np.vstack([(batch - batch.mean(axis=0)) ** 2 for batch in batches]).mean(axis=0))
    corrected = []
    for batch in batches:
        z = (batch - grand) / pooled
        gamma, delta = z.mean(axis=0), z.var(axis=0, ddof=1)
        centre, spread, mean, variance = gamma.mean(), gamma.var(), delta.mean(), delta.var(ddof=1)
        shape, scale = (2 * variance + mean**2) / variance, (mean * variance + mean**3) / variance
        for g in range(z.shape[1]):
            location, width = gamma[g], delta[g]
            for _ in range(500):
                location = (len(z) * spread * gamma[g] + width * centre) / (len(z) * spread + width)
                width = (scale + ((z[:, g] - location) ** 2).sum() / 2) / (len(z) / 2 + shape - 1)
            z[:, g] = (z[:, g] - location) / np.sqrt(width)
        corrected.append(z * pooled + grand)
    return corrected


def test_combat_equals_a_plain_version():
    rng = np.random.default_rng(0)
    first, second = rng.gamma(4, 100, (9, 40)), rng.gamma(4, 100, (14, 40)) * rng.lognormal(0.5, 1, 40)
    expected = plain_combat([np.log2(first + 1), np.log2(second + 1)])
    for found, logs in zip(correction.combat(first, second), expected, strict=True):
        np.testing.assert_allclose(np.log2(found + 1), logs, atol=2e-3)


def test_combat_moves_both_batches_to_their_common_mean():
    rng = np.random.default_rng(0)
    first, second = rng.lognormal(6, 0.2, (50, 60)), rng.lognormal(6, 0.2, (50, 60)) * rng.lognormal(0, 1, 60)
    before, after = (
        [np.log2(batch + 1).mean(axis=0) for batch in batches]
        for batches in ((first, second), correction.combat(first, second))
    )
    np.testing.assert_allclose(after[0], (before[0] + before[1]) / 2, atol=0.02)
    np.testing.assert_allclose(after[0], after[1], atol=0.02)


def test_genes_constant_in_a_batch_are_unchanged(unchanged):
    rng = np.random.default_rng(0)
    first, second = rng.gamma(4, 100, (5, 30)), rng.gamma(4, 200, (6, 30))
    first[:, 0], second[:, 1], first[:, 2], second[:, 2] = 0, 7, 5, 5
    with unchanged(AnnData(first), AnnData(second)):
        found = correction.combat(first, second)
    for batch, original in zip(found, (first, second), strict=True):
        np.testing.assert_array_equal(batch[:, :3], original[:, :3])
        assert np.isfinite(batch).all()
        assert (batch >= 0).all()
        assert not np.allclose(batch[:, 3:], original[:, 3:])
    without = correction.combat(first[:, 3:], second[:, 3:])
    np.testing.assert_allclose(found[0][:, 3:], without[0])


def test_artificial_mixtures_have_the_drawn_fractions():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(1, 100, (4, 20))
    profiles[2] = 0
    types = np.repeat([0, 1, 3], [70, 20, 10])
    fractions, weights = correction.draw_artificial_mixtures(types, 4, 4000, 500, rng)
    mixtures = weights @ profiles[types]
    np.testing.assert_allclose(mixtures, fractions @ profiles)
    np.testing.assert_allclose(fractions.sum(axis=1), 1)
    assert (fractions[:, 2] == 0).all()
    draws = np.maximum(rng.normal([0.7, 0.2, 0, 0.1], [1.4, 0.4, 0, 0.2], (100_000, 4)), 0)
    draws = draws[draws.any(axis=1)]
    expected = draws / draws.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fractions.mean(axis=0), expected.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(fractions.std(axis=0), expected.std(axis=0), atol=0.02)


def test_signature_is_unchanged_without_batch_effect():
    rng = np.random.default_rng(0)
    profiles = rng.gamma(1, 100, (4, 50))
    cells, types = np.repeat(profiles, 10, axis=0), np.repeat(range(4), 10)
    first, second = (correction.draw_artificial_mixtures(types, 4, 400, 500, rng) for _ in range(2))
    found = correction.correct_signature(first[1] @ cells, second[1] @ cells, second[0])
    assert np.corrcoef(found.ravel(), profiles.ravel())[0, 1] > 0.995


def test_unit_of_the_mixtures_does_not_matter():
    rng = np.random.default_rng(0)
    mixtures, artificial = rng.gamma(4, 100, (6, 30)), rng.gamma(4, 100, (6, 30))
    expected = correction.correct_mixtures(mixtures, artificial)
    scaled = correction.correct_mixtures(mixtures * np.array([1, 10, 1e3, 1e-2, 5, 7])[:, None], artificial)
    np.testing.assert_allclose(scaled, expected)
