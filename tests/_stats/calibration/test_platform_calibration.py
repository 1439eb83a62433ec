"""The calibrated model of bulk, compared with its formulas and its own draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from scdeconv._stats.calibration.platform_calibration import INFLATION, OFFSET, PROFILE_ERROR, PlatformCalibration
from scdeconv._stats.expression import LEVEL, log_shares


def sum_zero_covariance(n_types, rng):
    root = rng.normal(size=(n_types, n_types))
    projection = np.eye(n_types) - 1 / n_types
    return projection @ (0.3 * root @ root.T / n_types + 0.1 * np.eye(n_types)) @ projection


def make_calibration(n_genes=12, n_batches=0, depths=(), seed=0, noise=0.1, level=0.0):
    rng = np.random.default_rng(seed)
    shift = rng.normal(0, 0.2, n_genes) + level
    shift_sd, residual_sd = rng.uniform(0.5, 1, n_genes) * noise, rng.uniform(0.5, 2, n_genes) * noise
    mean = rng.normal(0, 0.3, 4)
    mean -= mean.mean()
    profiles = rng.gamma(4, 250, (4, n_genes))
    batches = rng.normal(0, 0.2, (n_batches, n_genes))
    batches -= batches.mean(axis=0) if n_batches else 0
    return PlatformCalibration(
        platform_shift=shift,
        shift_sd=shift_sd,
        residual_sd=residual_sd,
        repeatability=np.full(n_genes, 0.5),
        cell_size=np.ones(4),
        cell_size_umi=np.ones(4),
        mean_log_ratio=mean,
        profiles=profiles,
        centre=log_shares(softmax(mean)[None] @ profiles)[0] + shift,
        loadings=0.2 * rng.normal(size=(2, n_genes)),
        covariance=sum_zero_covariance(4, rng),
        depths=np.asarray(depths, dtype=float),
        batches=np.arange(n_batches),
        batch_shift=batches,
        n_donors=5,
    )


def test_noise_sums_residual_shift_and_profile_error():
    calibration = make_calibration()
    parts = zip(calibration.residual_sd, calibration.shift_sd, calibration.noise_variance(), strict=True)
    for residual, shift, variance in parts:
        assert variance == pytest.approx(residual**2 + shift**2 + PROFILE_ERROR**2)


def test_expected_is_the_log_share_of_pseudobulk():
    calibration = make_calibration()
    fractions = np.random.default_rng(0).dirichlet(np.ones(4), 3)
    for row, composition in zip(calibration.expected(fractions), fractions, strict=True):
        mixed = sum(f * profile for f, profile in zip(composition, calibration.profiles, strict=True))
        np.testing.assert_allclose(row, np.log(1 + LEVEL * 12 * mixed / mixed.sum()))


@pytest.mark.parametrize("n_batches", [0, 2])
def test_drawn_bulk_has_the_model_moments(n_batches):
    # no share is small enough to be clipped
    calibration = make_calibration(n_batches=n_batches, level=1.0)
    composition = np.tile(softmax(calibration.mean_log_ratio), (200_000, 1))
    shares = calibration.draw_bulk(composition, np.random.default_rng(5))
    assert (shares > 0).mean() > 0.999
    log = np.log1p(LEVEL * 12 * shares)
    mean = calibration.expected(composition[:1])[0] + calibration.platform_shift
    np.testing.assert_allclose(log.mean(axis=0), mean, atol=0.01)
    factors = calibration.factors()
    covariance = factors.T @ factors + np.diag(calibration.noise_variance())
    np.testing.assert_allclose(np.cov(log.T), covariance, atol=0.02)
    written_out = calibration.loadings.T @ calibration.loadings + OFFSET**2
    for shift in calibration.batch_shift:
        written_out = written_out + np.outer(shift, shift) / n_batches
    np.testing.assert_allclose(factors.T @ factors, written_out)


def test_drawn_counts_have_real_sequencing_depths():
    calibration = make_calibration(depths=[1e3, 1e6])
    counts = calibration.draw_bulk(np.full((400, 4), 0.25), np.random.default_rng(0))
    np.testing.assert_array_equal(counts, np.rint(counts))
    totals = np.log10(counts.sum(axis=1))
    near = [np.abs(totals - depth) < 1 for depth in (3, 6)]
    assert (near[0] | near[1]).mean() > 0.95
    assert 0.4 < near[0].mean() < 0.6


def test_drawn_compositions_are_logistic_normal_or_broad():
    calibration = make_calibration()
    drawn = calibration.draw_compositions(40_000, 0.25, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    narrow, broad = drawn[:30_000], drawn[30_000:]
    ratios = np.log(narrow) - np.log(narrow).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ratios.mean(axis=0), calibration.mean_log_ratio, atol=0.02)
    np.testing.assert_allclose(np.cov(ratios.T), INFLATION * calibration.covariance, atol=0.02)
    assert (narrow > 0).all()
    # half of the broad samples lack some types
    assert (broad == 0).any(axis=1).mean() == pytest.approx(0.5)
    np.testing.assert_allclose(broad.mean(axis=0), 0.25, atol=0.01)


def test_model_holds_the_noise_and_inflated_compositions():
    calibration = make_calibration(n_batches=2, depths=[1e4])
    model = calibration.model()
    assert model.counted
    np.testing.assert_array_equal(model.factors, calibration.factors())
    np.testing.assert_array_equal(model.variance, calibration.noise_variance())
    np.testing.assert_array_equal(model.covariance, INFLATION * calibration.covariance)
    assert not make_calibration().model().counted
