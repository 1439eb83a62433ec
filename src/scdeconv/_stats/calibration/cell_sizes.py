"""RNA content of a cell of each type, learned from pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._stats.expression import LEVEL, log_shares
from scdeconv._stats.shrinkage import correlation_shrinkage

from .platform_noise import measure_noise

if TYPE_CHECKING:
    from .repeats import AveragedSamples

# standard deviation of log cell sizes around those counted in UMIs
SIZE_SD = 0.3
SIZE_STEPS = 3


def fit_log_sizes(samples: AveragedSamples, profiles: np.ndarray) -> np.ndarray:
    """Return log factors of the cell sizes by Gauss-Newton steps from 0.

    Parameters
    ----------
    samples
        Paired samples, repeats averaged.
    profiles
        Expression of a cell as counted in single cells, cell types × genes.

    Returns
    -------
    Log of the learned over the counted cell size, length cell types, mean 0.
    """
    log_sizes = np.zeros(len(profiles))
    for _ in range(SIZE_STEPS):
        sized = profiles * np.exp(log_sizes)[:, None]
        expected = log_shares(samples.fractions @ sized)
        noise = measure_noise(samples, expected)
        log_sizes += size_step(samples.log - expected, samples.fractions, sized, noise.variance, noise.shift_variance)
    return log_sizes


def size_step(
    residuals: np.ndarray, fractions: np.ndarray, profiles: np.ndarray, variance: np.ndarray, shift_variance: float
) -> np.ndarray:
    """Return one Gauss-Newton step of the posterior of log cell sizes, with the shifts integrated out.

    For each gene the residuals over samples are modelled as ``shift + J d + noise``, with ``shift ~ N(0,
    shift_variance)``, ``d ~ N(0, SIZE_SD^2)`` the change of log sizes and J the derivative of log expression by it. Genes
    are correlated: their evidence is reduced to that of the effective number of independent genes.

    Parameters
    ----------
    residuals
        Log expression less its expectation, samples × genes.
    fractions
        Samples × cell types.
    profiles
        Expression of a cell, cell types × genes.
    variance
        Variance of the noise, length genes.
    shift_variance
        Variance of the shifts.

    Returns
    -------
    Changes of log sizes, length cell types, mean 0.
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
    """Return the derivative of a sample's log expression by the log cell sizes, cell types × genes."""
    n_genes = profiles.shape[1]
    parts = composition[:, None] * profiles
    # the total is zero where no cell of these types is left
    total = max(parts.sum(), np.finfo(float).tiny)
    shares = parts.sum(axis=0) / total
    slope = (parts - parts.sum(axis=1, keepdims=True) * shares) / total
    return slope * (LEVEL * n_genes / (1 + LEVEL * n_genes * shares))


def independent_share(residuals: np.ndarray) -> float:
    """Return the effective number of independent genes over the number of genes, from residuals of samples × genes."""
    n_samples, n_genes = residuals.shape
    _, squared = correlation_shrinkage(residuals - residuals.mean(axis=0))
    by_chance = n_genes * (n_genes - 1) / (n_samples - 1)
    return 1 / (1 + max(0.0, squared - by_chance) / n_genes)
