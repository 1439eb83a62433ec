"""The model of bulk that a calibration holds, against its formulas and its own draws."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from scipy.special import softmax

from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.logistic_normal import counting_variance
from scdeconv.pp import Calibration
from scdeconv.pp._calibration import INFLATION, OFFSET, PROFILE_ERROR

TYPES = ["B", "NK", "T", "Mono"]


def sum_zero_covariance(n_types, rng):
    root = rng.normal(size=(n_types, n_types))
    projection = np.eye(n_types) - 1 / n_types
    return projection @ (0.3 * root @ root.T / n_types + 0.1 * np.eye(n_types)) @ projection


def make_calibration(n_genes=12, n_batches=0, depths=(), seed=0, noise=0.1):
    rng = np.random.default_rng(seed)
    genes = pd.Index([f"G{i}" for i in range(n_genes)])
    table = pd.DataFrame(
        {
            "platform_shift": rng.normal(0, 0.2, n_genes),
            "shift_sd": rng.uniform(0.5, 1, n_genes) * noise,
            "residual_sd": rng.uniform(0.5, 2, n_genes) * noise,
            "repeatability": 0.5,
        },
        index=genes,
    )
    mean = rng.normal(0, 0.3, len(TYPES))
    mean -= mean.mean()
    profiles = rng.gamma(4, 250, (len(TYPES), n_genes))
    batches = rng.normal(0, 0.2, (n_batches, n_genes))
    batches -= batches.mean(axis=0) if n_batches else 0
    return Calibration(
        genes=table,
        cell_types=pd.DataFrame({"cell_size": 1.0, "cell_size_umi": 1.0, "mean_log_ratio": mean}, index=TYPES),
        profiles=profiles,
        centre=log_shares(softmax(mean)[None] @ profiles)[0] + table["platform_shift"].to_numpy(),
        loadings=0.2 * rng.normal(size=(2, n_genes)),
        covariance=sum_zero_covariance(len(TYPES), rng),
        depths=np.asarray(depths, dtype=float),
        batch_shift=pd.DataFrame(batches.T, index=genes),
        n_donors=5,
    )


@pytest.mark.parametrize("depth", [2e4, 1e6])
def test_counting_variance_is_that_of_poisson_counts(depth):
    rng = np.random.default_rng(0)
    shares = np.array([0.5, 1, 1, 2, 5, 10, 20, 60]) / 99.5
    log = np.log1p(LEVEL * 8 * shares)
    counts = rng.poisson(shares * depth, (100_000, 8))
    observed = np.log1p(LEVEL * 8 * counts / depth).var(axis=0)
    np.testing.assert_allclose(counting_variance(log, np.array(depth)), observed, rtol=0.03)


def test_counting_variance_falls_with_depth_and_is_none_below_zero():
    log = np.array([[-1.0, 0.0, 1.0, 3.0]])
    variance = counting_variance(log, np.array([[10.0], [1000.0]]))
    np.testing.assert_allclose(variance[0], 100 * variance[1])
    assert not variance[:, :2].any()


def test_noise_is_residual_and_uncertain_shift_and_profile_error():
    calibration = make_calibration()
    for gene, variance in zip(calibration.genes.itertuples(), calibration.noise_variance(), strict=True):
        assert variance == pytest.approx(gene.residual_sd**2 + gene.shift_sd**2 + PROFILE_ERROR**2)


def test_expected_is_the_log_share_of_cells_added_up():
    calibration = make_calibration()
    fractions = np.random.default_rng(0).dirichlet(np.ones(4), 3)
    for row, composition in zip(calibration.expected(fractions), fractions, strict=True):
        mixed = sum(f * profile for f, profile in zip(composition, calibration.profiles, strict=True))
        np.testing.assert_allclose(row, np.log(1 + LEVEL * 12 * mixed / mixed.sum()))


@pytest.mark.parametrize("n_batches", [0, 2])
def test_drawn_bulk_has_the_mean_and_covariance_that_the_factors_say(n_batches):
    calibration = make_calibration(n_batches=n_batches)
    # far enough from zero shares that none is clipped
    calibration.genes["platform_shift"] += 1.0
    composition = np.tile(softmax(calibration.cell_types["mean_log_ratio"]), (200_000, 1))
    shares = calibration.draw_bulk(composition, np.random.default_rng(5))
    assert (shares > 0).mean() > 0.999
    log = np.log1p(LEVEL * 12 * shares)
    mean = calibration.expected(composition[:1])[0] + calibration.genes["platform_shift"]
    np.testing.assert_allclose(log.mean(axis=0), mean, atol=0.01)
    factors = calibration.factors()
    covariance = factors.T @ factors + np.diag(calibration.noise_variance())
    np.testing.assert_allclose(np.cov(log.T), covariance, atol=0.02)
    written_out = calibration.loadings.T @ calibration.loadings + OFFSET**2
    for shift in calibration.batch_shift.to_numpy().T:
        written_out = written_out + np.outer(shift, shift) / n_batches
    np.testing.assert_allclose(factors.T @ factors, written_out)


def test_drawn_counts_are_whole_numbers_of_the_depths_of_real_bulk():
    calibration = make_calibration(depths=[1e3, 1e6])
    counts = calibration.draw_bulk(np.full((400, 4), 0.25), np.random.default_rng(0))
    np.testing.assert_array_equal(counts, np.rint(counts))
    totals = np.log10(counts.sum(axis=1))
    near = [np.abs(totals - depth) < 1 for depth in (3, 6)]
    assert (near[0] | near[1]).mean() > 0.95
    assert 0.4 < near[0].mean() < 0.6


def test_drawn_compositions_are_logistic_normal_but_for_the_broad_share():
    calibration = make_calibration()
    drawn = calibration.draw_compositions(40_000, 0.25, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    narrow, broad = drawn[:30_000], drawn[30_000:]
    ratios = np.log(narrow) - np.log(narrow).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(ratios.mean(axis=0), calibration.cell_types["mean_log_ratio"], atol=0.02)
    np.testing.assert_allclose(np.cov(ratios.T), INFLATION * calibration.covariance, atol=0.02)
    assert (narrow > 0).all()
    # half of the broad share leaves types out
    assert (broad == 0).any(axis=1).mean() == pytest.approx(0.5)
    np.testing.assert_allclose(broad.mean(axis=0), 0.25, atol=0.01)


def test_stored_calibration_comes_back_and_its_absence_is_told():
    calibration = make_calibration()
    empty = MuData({})
    with pytest.raises(
        KeyError, match=r"Expected a calibration in mdata.uns\['scdeconv'\].*Call pp.calibrate\(mdata\)"
    ):
        Calibration.of(empty)
    empty.uns["scdeconv"] = {"calibration": calibration.to_dict()}
    assert vars(Calibration.of(empty)) == vars(calibration)


def test_representation_names_numbers():
    assert repr(make_calibration()) == "Calibration: 5 donors, 12 genes, 4 cell types; median repeatability 0.50"
