"""Estimation of the RNA content per cell of each cell type from pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.shrinkage import correlation_shrinkage

from .platform_noise import measure_noise

if TYPE_CHECKING:
    from .repeats import AveragedSamples

# prior SD of log cell sizes around the UMI-based cell sizes (set by hand)
SIZE_SD = 0.3
# number of Gauss-Newton steps (set by hand)
N_GAUSS_NEWTON_STEPS = 3


def fit_log_sizes(samples: AveragedSamples, profiles: np.ndarray) -> np.ndarray:
    """Return MAP estimates of the log cell-size factors by Gauss-Newton steps that start at 0.

    Parameters
    ----------
    samples
        Paired samples with averaged repeats.
    profiles
        Mean single-cell counts per cell, cell types × genes.

    Returns
    -------
    Log ratio of estimated to UMI-based cell size, length cell types, mean 0.
    """
    log_sizes = np.zeros(len(profiles))
    for _ in range(N_GAUSS_NEWTON_STEPS):
        sized = profiles * np.exp(log_sizes)[:, None]
        expected = log_shares(samples.fractions @ sized)
        noise = measure_noise(samples, expected)
        log_sizes += size_step(samples.log - expected, samples.fractions, sized, noise.variance, noise.shift_variance)
    return log_sizes


def size_step(
    residuals: np.ndarray, fractions: np.ndarray, profiles: np.ndarray, variance: np.ndarray, shift_variance: float
) -> np.ndarray:
    """Return one Gauss-Newton step for the MAP log cell sizes, with the platform shifts integrated out.

    The residuals of a gene are modelled as ``shift + J d + noise``, with ``shift ~ N(0, shift_variance)``,
    ``d ~ N(0, SIZE_SD^2)`` the change of the log sizes, and J the Jacobian of log expression. Genes are correlated, so
    the likelihood is scaled to the effective number of independent genes.

    Parameters
    ----------
    residuals
        Log expression minus expectation, samples × genes.
    fractions
        Samples × cell types.
    profiles
        Mean expression per cell, cell types × genes.
    variance
        Noise variance, length genes.
    shift_variance
        Variance of the platform shifts over genes.

    Returns
    -------
    Step of the log sizes, length cell types, mean 0.
    """
    n_samples, n_types = len(residuals), len(profiles)
    share_of_shift = shift_variance / (variance + n_samples * shift_variance)
    precision, target = np.zeros((n_types, n_types)), np.zeros(n_types)
    summed = np.zeros(profiles.shape)
    for composition, residual in zip(fractions, residuals, strict=True):
        slope = slope_by_log_sizes(composition, profiles)
        precision += (slope / variance) @ slope.T
        target += slope @ (residual / variance)
        summed += slope
    precision -= (summed * share_of_shift / variance) @ summed.T
    target -= summed @ (share_of_shift / variance * residuals.sum(axis=0))
    trust = independent_share(residuals)
    step = np.linalg.solve(trust * precision + np.eye(n_types) / SIZE_SD**2, trust * target)
    return step - step.mean()


def slope_by_log_sizes(composition: np.ndarray, profiles: np.ndarray) -> np.ndarray:
    """Return the Jacobian of a sample's log expression with respect to log cell sizes, cell types × genes."""
    n_genes = profiles.shape[1]
    parts = composition[:, None] * profiles
    # the total is zero if the sample has none of these cell types
    total = max(parts.sum(), np.finfo(float).tiny)
    shares = parts.sum(axis=0) / total
    slope = (parts - parts.sum(axis=1, keepdims=True) * shares) / total
    return slope * (LEVEL * n_genes / (1 + LEVEL * n_genes * shares))


def independent_share(residuals: np.ndarray) -> float:
    """Return the effective share of independent genes, from residuals (samples × genes)."""
    n_samples, n_genes = residuals.shape
    _, squared = correlation_shrinkage(residuals - residuals.mean(axis=0))
    by_chance = n_genes * (n_genes - 1) / (n_samples - 1)
    return 1 / (1 + max(0.0, squared - by_chance) / n_genes)
