"""Fit of the platform calibration to pairs, and its default without pairs."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.calibration.logistic_normal import counting_variance
from scdeconv._stats.compositions import FLOOR, centred_log_ratio, without_common_level
from scdeconv._stats.expression import log_shares
from scdeconv._stats.rounding import deviations_from_mean
from scdeconv._stats.shrinkage import shrink_covariance

from .cell_sizes import fit_log_sizes
from .noise_factors import factor_noise
from .platform_calibration import PlatformCalibration
from .platform_noise import measure_noise
from .repeats import AveragedSamples, average_by_code, average_repeats

# without pairs: SD of the log platform shifts, and SD of the centred log-ratios of compositions (set by hand)
PRIOR_SHIFT_SD = 0.7
PRIOR_RATIO_SD = 1.5


def fit_platform_calibration(
    expression: np.ndarray,
    fractions: np.ndarray,
    donors: np.ndarray,
    profiles: np.ndarray,
    cell_size: np.ndarray,
    depths: np.ndarray,
    batches: np.ndarray | None = None,
) -> PlatformCalibration:
    """Fit the calibration to paired samples.

    Parameters
    ----------
    expression
        Bulk expression on a linear scale, samples × genes.
    fractions
        Measured fractions, samples × cell types, rows sum to 1.
    donors
        Donor label of each sample; at least two donors.
    profiles
        Mean expression per cell, cell types × genes.
    cell_size
        Mean total per cell over all genes, length cell types.
    depths
        Library sizes of all bulk samples over these genes; empty if bulk is not counts.
    batches
        Batch label of each sample, or None.

    Notes
    -----
    Shrinkage: Schäfer & Strimmer 2005 (correlations), Opgen-Rhein & Strimmer 2007 (variances).
    """
    log = log_shares(expression)
    counting = counting_variance(log, expression.sum(axis=1, keepdims=True)) if len(depths) else np.zeros_like(log)
    samples = average_repeats(log, fractions, counting, donors, batches)
    log_sizes = fit_log_sizes(samples, profiles)
    sized = profiles * np.exp(log_sizes)[:, None]
    expected = log_shares(samples.fractions @ sized)
    noise = measure_noise(samples, expected)
    weights = samples.weights
    of_counting = (weights @ samples.counting) / weights.sum()
    loadings, independent = factor_noise(noise.deviations, noise.variance, of_counting)
    # shrinkage factor of the mean residual over donors
    kept = noise.shift_variance / (noise.shift_variance + noise.variance / samples.n_donors)
    ratios = log_ratios_of_donors(samples)
    return PlatformCalibration(
        platform_shift=noise.shift * kept,
        shift_sd=np.sqrt(kept * noise.variance / samples.n_donors),
        residual_sd=np.sqrt(independent),
        repeatability=noise.shift_variance / (noise.shift_variance + noise.variance),
        cell_size=cell_size * np.exp(log_sizes),
        cell_size_umi=cell_size,
        mean_log_ratio=ratios.mean(axis=0),
        profiles=sized,
        centre=np.average(expected, axis=0, weights=weights) + noise.shift * kept,
        loadings=loadings,
        covariance=without_common_level(shrink_covariance(deviations_from_mean(ratios))),
        depths=depths,
        batches=np.empty(0, dtype=str) if batches is None else np.unique(batches),
        batch_shift=noise.batch_shift,
        n_donors=samples.n_donors,
    )


def log_ratios_of_donors(samples: AveragedSamples) -> np.ndarray:
    """Return centred log-ratios of each donor's mean composition, donors × cell types."""
    return centred_log_ratio(average_by_code(samples.donors) @ samples.fractions, FLOOR)


def calibration_without_pairs(profiles: np.ndarray, cell_size: np.ndarray, depths: np.ndarray) -> PlatformCalibration:
    """Return the prior calibration for a reference without pairs.

    Parameters
    ----------
    profiles, cell_size, depths
        As for :func:`fit_platform_calibration`.
    """
    n_types, n_genes = profiles.shape
    return PlatformCalibration(
        platform_shift=np.zeros(n_genes),
        shift_sd=np.full(n_genes, PRIOR_SHIFT_SD),
        residual_sd=np.zeros(n_genes),
        repeatability=np.zeros(n_genes),
        cell_size=cell_size,
        cell_size_umi=cell_size,
        mean_log_ratio=np.zeros(n_types),
        profiles=profiles,
        centre=log_shares(profiles.mean(axis=0, keepdims=True))[0],
        loadings=np.empty((0, n_genes)),
        covariance=without_common_level(PRIOR_RATIO_SD**2 * np.eye(n_types)),
        depths=depths,
        batches=np.empty(0, dtype=str),
        batch_shift=np.empty((0, n_genes)),
        n_donors=0,
    )
