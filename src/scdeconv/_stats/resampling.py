"""Prediction intervals from resampled training data, for methods without held-out donors."""

from __future__ import annotations

import numbers

import numpy as np
from scipy.stats import t

# number of resamples: 50 give the standard error to 10 %
N_RESAMPLES = 50
# the constants below were chosen on three data sets, see docs/benchmarks/reference_intervals.md
# SD of the log cell sizes, and variance of counts relative to a Poisson distribution
SIZE_ERROR_SD, COUNT_DISPERSION = 0.05, 1.0
# SD of the log cell sizes of profiles with equal totals, whose RNA content is unknown: 0.45 between the types of blood
# (Hao et al. 2021) and of the retina (Guo et al. 2025)
UNKNOWN_SIZE_SD = 0.5
# part of the standard error that resampling does not show
FLOOR_ERROR = 0.003
# scaled t distribution of the error in units of the standard error, from benchmarks/reference_intervals.py
ERROR_SCALE, ERROR_DF = 0.95, 3.1


def draw_profiles(sums: np.ndarray, n_cells: np.ndarray, n_resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw mean profiles from reference donors with exponential weights (Bayesian bootstrap, Rubin 1981).

    Parameters
    ----------
    sums
        Summed counts, donors × cell types × genes.
    n_cells
        Number of cells, donors × cell types.
    n_resamples
        Number of draws.
    rng
        Random number generator.

    Returns
    -------
    Profiles with mean 1, resamples × cell types × genes.
    """
    weights = rng.exponential(size=(n_resamples, len(sums)))
    cells = np.tensordot(weights, n_cells, 1)[..., None]
    profiles = np.tensordot(weights, sums, 1) / np.where(cells > 0, cells, 1)
    profiles /= np.maximum(profiles.mean(axis=(1, 2), keepdims=True), np.finfo(float).tiny)
    return profiles


def draw_log_sizes(n_resamples: int, sizes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw errors of the log cell sizes that have mean 0, the same variance, and no correlation between cell types.

    Parameters
    ----------
    n_resamples
        Number of draws. With more types than draws, the errors are correlated.
    sizes
        Cell sizes, length cell types. If all are equal, they are unknown and their errors are larger.
    rng
        Random number generator.

    Returns
    -------
    Resamples × cell types.
    """
    draws = rng.normal(size=(n_resamples, len(sizes)))
    draws -= draws.mean(axis=0)
    if len(sizes) < n_resamples:
        draws = np.linalg.qr(draws)[0] * np.sqrt(n_resamples - 1)
    return (UNKNOWN_SIZE_SD if np.allclose(sizes, sizes[0]) else SIZE_ERROR_SD) * draws


def add_counting_noise(counts: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Return counts (samples × genes) with further counting noise; ``draws`` are standard normal, length genes.

    All samples have the same draws: only the variance within a sample is used, and no sample depends on another one.
    """
    noisy: np.ndarray = np.maximum(counts + np.sqrt(COUNT_DISPERSION * counts) * draws, 0)
    return noisy


def standard_error(resamples: np.ndarray) -> np.ndarray:
    """Return the standard error of fractions, samples × cell types.

    Parameters
    ----------
    resamples
        Fractions from resampled training data, resamples × samples × cell types.
    """
    error: np.ndarray = resamples.std(axis=0, ddof=1) + FLOOR_ERROR
    return error


def error_quantile(coverage: float, scale: float = ERROR_SCALE, df: float = ERROR_DF) -> float:
    """Return the half width of an interval in units of the standard error."""
    return scale * float(t.ppf((1 + coverage) / 2, df))


def resampled_intervals(fractions: np.ndarray, resamples: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bounds of fractions.

    The error is modelled as the standard error times a scaled t distribution.

    Parameters
    ----------
    fractions
        Estimated fractions, samples × cell types.
    resamples
        As for :func:`standard_error`.
    coverage
        Probability that the interval contains the fraction, above 0 and below 1.

    Returns
    -------
    Lower and upper bounds, samples × cell types.

    Raises
    ------
    ValueError
        If the coverage is not between 0 and 1.
    """
    if not isinstance(coverage, numbers.Real) or not 0 < coverage < 1:
        msg = f"Expected coverage above 0 and below 1, found {coverage}. Use a probability such as 0.9."
        raise ValueError(msg)
    half_width = error_quantile(coverage) * standard_error(resamples)
    return np.clip(fractions - half_width, 0, 1), np.clip(fractions + half_width, 0, 1)
