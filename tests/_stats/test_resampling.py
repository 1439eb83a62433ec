from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from scdeconv._stats import resampling


def test_profiles_are_weighted_means_of_donors():
    rng = np.random.default_rng(0)
    sums, n_cells = rng.poisson(20, (3, 2, 4)).astype(float), rng.integers(1, 9, (3, 2)).astype(float)
    found = resampling.draw_profiles(sums, n_cells, 2, np.random.default_rng(1))
    weights = np.random.default_rng(1).exponential(size=(2, 3))
    for draw in range(2):
        expected = np.array(
            [
                [
                    sum(weights[draw, d] * sums[d, k, g] for d in range(3))
                    / sum(weights[draw, d] * n_cells[d, k] for d in range(3))
                    for g in range(4)
                ]
                for k in range(2)
            ]
        )
        np.testing.assert_allclose(found[draw], expected / expected.mean())


def test_single_donor_gives_the_same_profiles():
    sums = np.arange(1.0, 9.0).reshape(1, 2, 4)
    found = resampling.draw_profiles(sums, np.full((1, 2), 3.0), 5, np.random.default_rng(0))
    np.testing.assert_allclose(found, np.broadcast_to(sums / sums.mean(), (5, 2, 4)))


def test_types_without_cells_have_zero_profiles():
    sums, n_cells = np.ones((2, 2, 3)), np.array([[4.0, 0.0], [2.0, 0.0]])
    sums[:, 1] = 0
    found = resampling.draw_profiles(sums, n_cells, 3, np.random.default_rng(0))
    assert (found[:, 1] == 0).all()
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("sizes", "sd"), [([1.0, 2.0, 5.0], resampling.SIZE_ERROR_SD), ([3.0, 3.0, 3.0], resampling.UNKNOWN_SIZE_SD)]
)
def test_size_errors_have_exact_moments(sizes, sd):
    draws = resampling.draw_log_sizes(20, np.array(sizes), np.random.default_rng(0))
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(draws.T), sd**2 * np.eye(3), atol=1e-12)


def test_counting_noise_has_the_variance_of_counts():
    counts = np.array([[0.0, 400.0, 10_000.0]])
    draws = np.random.default_rng(0).normal(size=(4000, 3))
    noisy = np.stack([resampling.add_counting_noise(counts, draw)[0] for draw in draws])
    np.testing.assert_allclose(noisy.var(axis=0), resampling.COUNT_DISPERSION * counts[0], rtol=0.06)
    assert (noisy >= 0).all()


def test_bounds_are_quantiles_of_a_t_distribution():
    resamples = np.array([[[0.2, 0.8]], [[0.4, 0.6]]])
    fractions = np.array([[0.3, 0.7]])
    lower, upper = resampling.resampled_intervals(fractions, resamples, 0.8)
    error = np.sqrt(0.02) + resampling.FLOOR_ERROR
    half = resampling.ERROR_SCALE * stats.t(resampling.ERROR_DF).ppf(0.9) * error
    np.testing.assert_allclose(lower, np.maximum(fractions - half, 0))
    np.testing.assert_allclose(upper, np.minimum(fractions + half, 1))


def test_higher_coverage_gives_wider_intervals():
    rng = np.random.default_rng(0)
    resamples = rng.dirichlet([4.0, 3.0, 3.0], (50, 6))
    fractions = resamples.mean(axis=0)
    bounds = [resampling.resampled_intervals(fractions, resamples, level) for level in (0.5, 0.8, 0.9, 0.95, 0.99)]
    for (low, up), (wider_low, wider_up) in zip(bounds, bounds[1:], strict=False):
        assert (wider_low <= low).all()
        assert (up <= wider_up).all()
        assert (wider_up - wider_low).sum() > (up - low).sum()


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 1.5, "0.9"])
def test_impossible_coverage_is_refused(coverage):
    with pytest.raises(ValueError, match="Expected coverage above 0 and below 1"):
        resampling.resampled_intervals(np.ones((1, 1)), np.ones((3, 1, 1)), coverage)
