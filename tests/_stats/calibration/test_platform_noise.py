from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.calibration.platform_noise import split_residuals
from scdeconv._stats.expression import log_shares


def shift_error(found, truth):
    """The mean of all shifts is not identifiable beside depth, so it is ignored."""
    return float((found.platform_shift - truth).std())


def test_residuals_are_the_sum_of_their_parts():
    rng = np.random.default_rng(0)
    residuals, batches = rng.normal(size=(12, 30)) + 3 * (np.arange(12) % 3)[:, None], np.arange(12) % 3
    shift, of_batch, deviations = split_residuals(residuals, np.ones(12), batches)
    np.testing.assert_allclose(shift + of_batch[batches] + deviations, residuals)
    np.testing.assert_allclose(shift, residuals.mean(axis=0))


def test_batch_means_are_shrunk_by_their_noise():
    """Empirical Bayes in explicit form: variance between batch means minus the noise variance of a mean."""
    rng = np.random.default_rng(0)
    batches = np.arange(12) % 3
    residuals = rng.normal(size=(12, 30)) + rng.normal(size=(3, 30))[batches]
    shift, of_batch, _ = split_residuals(residuals, np.ones(12), batches)
    means = np.stack([residuals[batches == b].mean(axis=0) - shift for b in range(3)])
    noise = ((residuals - shift - means[batches]) ** 2).mean() / 4
    between = (means**2).mean() - noise
    np.testing.assert_allclose(of_batch, means * between / (between + noise))


def test_without_batches_there_is_no_batch_shift():
    _, of_batch, _ = split_residuals(np.ones((3, 5)), np.ones(3), None)
    assert of_batch.shape == (0, 5)


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_platform_shift_is_recovered(plant, seed):
    planted = plant(seed=seed)
    found = planted.fit()
    assert np.corrcoef(found.platform_shift, planted.shift)[0, 1] > 0.95
    assert shift_error(found, planted.shift) < 0.1


def test_shift_error_falls_with_more_pairs(plant):
    errors = []
    for n_donors in (3, 5, 10, 30):
        many = [plant(n_donors, seed=seed) for seed in range(6)]
        errors.append(np.mean([shift_error(planted.fit(), planted.shift) for planted in many]))
    assert (np.diff(errors) < 0).all()
    assert errors[-1] < 0.6 * errors[0]
    assert errors[0] < plant(3).shift.std()


def test_shrinkage_lowers_the_shift_error_as_estimated(plant):
    shrunk, raw, claimed = [], [], []
    for seed in range(6):
        planted = plant(3, seed=seed, noise_sd=0.6, factor_sd=0.0)
        found = planted.fit()
        difference = (log_shares(planted.expression) - found.expected(planted.fractions)).mean(axis=0)
        assert (np.abs(found.platform_shift) <= np.abs(difference) + 1e-9).all()
        shrunk.append(shift_error(found, planted.shift))
        raw.append((difference - planted.shift).std())
        claimed.append(np.sqrt((found.shift_sd**2).mean()))
    assert np.mean(shrunk) < 0.95 * np.mean(raw)
    assert np.mean(claimed) == pytest.approx(np.mean(shrunk), rel=0.3)


def test_repeatability_is_the_variance_explained_by_shift(plant):
    quiet, loud = (np.median(plant(seed=1, noise_sd=noise, factor_sd=0.0).fit().repeatability) for noise in (0.1, 0.4))
    assert quiet == pytest.approx(0.4**2 / (0.4**2 + 0.1**2), abs=0.05)
    assert loud == pytest.approx(0.5, abs=0.1)


def test_batch_shift_is_recovered(plant):
    shift = np.random.default_rng(9).normal(0, 0.3, (2, 300))
    planted = plant(30, seed=6, batch_shift=shift - shift.mean(axis=0), factor_sd=0.05)
    found, blind = planted.fit(batches=planted.batches), planted.fit()
    learned, truth = found.batch_shift[1] - found.batch_shift[0], shift[1] - shift[0]
    assert np.corrcoef(learned, truth)[0, 1] > 0.95
    assert np.polyfit(truth, learned, 1)[0] == pytest.approx(1, abs=0.1)
    # variance explained by batches is not donor noise
    noise = [(c.loadings**2).sum() + (c.residual_sd**2).sum() for c in (found, blind)]
    assert noise[0] < 0.5 * noise[1]


def test_equal_batches_get_almost_no_shift(plant):
    planted = plant(30, seed=7, factor_sd=0.0)
    assert np.abs(planted.fit(batches=planted.batches).batch_shift).max() < 0.03
