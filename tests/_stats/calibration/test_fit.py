from __future__ import annotations

import numpy as np
import pytest

from scdeconv._stats.calibration.fit import calibration_without_pairs
from scdeconv._stats.compositions import centred_log_ratio
from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.shrinkage import shrink_variances


def test_compositions_are_described_by_their_log_ratios(plant):
    planted = plant(40, seed=5)
    found = planted.fit()
    ratios = centred_log_ratio(planted.fractions)
    np.testing.assert_allclose(found.mean_log_ratio, ratios.mean(axis=0), atol=1e-7)
    np.testing.assert_allclose(found.covariance.sum(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(found.covariance, np.cov(ratios.T), atol=0.25)
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-10


def test_centre_is_the_mean_expected_bulk(plant):
    planted = plant(12, seed=4)
    found = planted.fit()
    observed = log_shares(planted.expression).mean(axis=0)
    np.testing.assert_allclose(found.centre, found.expected(planted.fractions).mean(axis=0) + found.platform_shift)
    assert np.abs(found.centre - observed).mean() < 0.05
    assert np.abs(found.centre - found.platform_shift - observed).mean() > 0.2


def test_samples_of_a_donor_are_averaged_first(plant):
    planted = plant(16, seed=3, counts=False)
    codes = np.repeat(np.arange(8), [4, 3, 2, 2, 2, 1, 1, 1])
    found = planted.fit(donors=codes)
    assert found.n_donors == len(found.loadings) == 8
    mean = lambda rows: np.stack([rows[codes == code].mean(axis=0) for code in range(8)])
    expected = found.expected(mean(planted.fractions))
    residuals = mean(log_shares(planted.expression)) - expected
    deviations = residuals - residuals.mean(axis=0)
    noise = (found.loadings**2).sum(axis=0) + found.residual_sd**2
    np.testing.assert_allclose(noise, shrink_variances(deviations), rtol=1e-6)
    np.testing.assert_allclose(found.centre, expected.mean(axis=0) + found.platform_shift)
    kept = 1 - found.shift_sd**2 / (residuals.mean(axis=0).var() - (noise / 8).mean())
    np.testing.assert_allclose(found.platform_shift, residuals.mean(axis=0) * kept, rtol=1e-6)
    ratios = centred_log_ratio(mean(planted.fractions))
    np.testing.assert_allclose(found.mean_log_ratio, ratios.mean(axis=0), atol=1e-7)


def test_zero_profiles_give_finite_numbers(plant):
    planted = plant(6)
    planted.profiles, planted.claimed = np.zeros((4, 300)), np.zeros(4)
    found = planted.fit()
    assert not found.profiles.any()
    for values in (found.platform_shift, found.shift_sd, found.residual_sd, found.repeatability, found.loadings):
        assert np.isfinite(values).all()


def test_shift_does_not_depend_on_unit_or_depth(plant):
    planted = plant(10, counts=False)
    before = planted.fit()
    planted.expression = planted.expression * np.geomspace(0.01, 100, 10)[:, None]
    after = planted.fit()
    np.testing.assert_allclose(after.platform_shift, before.platform_shift, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(after.residual_sd, before.residual_sd, rtol=1e-6, atol=1e-8)


def test_labels_of_batches_are_sorted(plant):
    planted = plant(10)
    found = planted.fit(batches=np.array(["run2", "run1"])[planted.batches])
    assert found.batches.tolist() == ["run1", "run2"]
    assert found.batch_shift.shape == (2, 300)


@pytest.mark.parametrize("n_types", [2, 4])
def test_without_pairs_the_reference_is_kept(n_types):
    profiles = np.random.default_rng(0).gamma(1, 1, (n_types, 50))
    found = calibration_without_pairs(profiles, np.arange(n_types) + 1.0, np.array([1e6]))
    assert found.n_donors == 0
    assert not found.platform_shift.any()
    assert (found.shift_sd > 0.5).all()
    np.testing.assert_array_equal(found.profiles, profiles)
    np.testing.assert_array_equal(found.cell_size, found.cell_size_umi)
    shares = profiles.mean(axis=0) / profiles.sum() * n_types
    np.testing.assert_allclose(found.centre, np.log(1 + LEVEL * 50 * shares))
    assert np.linalg.matrix_rank(found.covariance) == n_types - 1
    assert found.loadings.shape == found.batch_shift.shape == (0, 50)
