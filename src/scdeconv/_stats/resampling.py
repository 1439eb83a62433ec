"""Prediction intervals from resampled training data, for methods without held-out donors."""

from __future__ import annotations

import numbers

import numpy as np
from scipy.stats import t

from scdeconv._stats.calibration.cell_sizes import SIZE_SD

# number of resamples: 25 give the standard error to 14 %
N_RESAMPLES = 25
# the constants below are from benchmarks/reference_intervals.py, see docs/benchmarks/reference_intervals.md
# SD of the log cell sizes relative to their prior SD
SIZE_SHARE = 0.5
# error that resampling does not show: in units of sqrt(f (1 - f)), and as a fraction
SHARE_ERROR, FLOOR_ERROR = 0.1, 0.01
# scaled t distribution of the error in units of the standard error
ERROR_SCALE, ERROR_DF = 1.0, 5.0


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


def draw_log_sizes(n_resamples: int, n_types: int, rng: np.random.Generator) -> np.ndarray:
    """Draw errors of the log cell sizes that have mean 0, the same variance, and no correlation between cell types.

    Parameters
    ----------
    n_resamples, n_types
        Shape of the result. With more types than resamples, the errors are correlated.
    rng
        Random number generator.

    Returns
    -------
    Resamples × cell types.
    """
    draws = rng.normal(size=(n_resamples, n_types))
    draws -= draws.mean(axis=0)
    if n_types < n_resamples:
        draws = np.linalg.qr(draws)[0] * np.sqrt(n_resamples - 1)
    return SIZE_SHARE * SIZE_SD * draws


def standard_error(fractions: np.ndarray, resamples: np.ndarray) -> np.ndarray:
    """Return the standard error of fractions, samples × cell types.

    Parameters
    ----------
    fractions
        Estimated fractions, samples × cell types.
    resamples
        Fractions from resampled training data, resamples × samples × cell types.
    """
    own = SHARE_ERROR**2 * fractions * (1 - fractions)
    return np.sqrt(resamples.var(axis=0, ddof=1) + own) + FLOOR_ERROR


def resampled_intervals(fractions: np.ndarray, resamples: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bounds of fractions.

    The error is modelled as the standard error times a scaled t distribution.

    Parameters
    ----------
    fractions, resamples
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
    half_width = ERROR_SCALE * t.ppf((1 + coverage) / 2, ERROR_DF) * standard_error(fractions, resamples)
    return np.clip(fractions - half_width, 0, 1), np.clip(fractions + half_width, 0, 1)
