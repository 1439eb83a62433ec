"""Variances and correlations from few samples, shrunk by as much as they are uncertain."""

from __future__ import annotations

import numpy as np


def shrink_variances(residuals: np.ndarray) -> np.ndarray:
    """Return the variance of each column, shrunk to the median of all (Opgen-Rhein & Strimmer 2007).

    Parameters
    ----------
    residuals
        Samples × columns, each column with mean 0.

    Returns
    -------
    Length columns. The share of the median is the estimated variance of the variances over their spread.
    """
    n_samples = len(residuals)
    squares = residuals**2
    variances = squares.sum(axis=0) / (n_samples - 1)
    of_variances = n_samples / (n_samples - 1) ** 3 * ((squares - squares.mean(axis=0)) ** 2).sum(axis=0)
    target = np.median(variances)
    spread = ((variances - target) ** 2).sum()
    share = min(1.0, of_variances.sum() / spread) if spread > 0 else 1.0
    return share * target + (1 - share) * variances


def correlation_shrinkage(residuals: np.ndarray) -> tuple[float, float]:
    """Return how far to shrink the columns' correlations to zero, and the sum of their squares (Schäfer & Strimmer 2005).

    Sums over pairs of columns follow from the smaller of the kernels of samples and of columns, so that the
    cost is linear in the larger number.

    Parameters
    ----------
    residuals
        Samples × columns, each column with mean 0.

    Returns
    -------
    Intensity from 0 (keep the correlations) to 1 (drop them), and the sum of squared correlations over pairs of
    different columns.
    """
    n_samples = len(residuals)
    scale = np.sqrt((residuals**2).sum(axis=0) / (n_samples - 1))
    standard = residuals[:, scale > 0] / scale[scale > 0]
    # both kernels have the same sum of squares
    shorter = standard if n_samples <= standard.shape[1] else standard.T
    total = ((shorter @ shorter.T) ** 2).sum()
    # r_ij is the mean over samples of w_sij = z_si z_sj, times n / (n - 1)
    squared = total / (n_samples - 1) ** 2 - standard.shape[1]
    of_products = ((standard**2).sum(axis=1) ** 2).sum() - (standard**4).sum()
    of_means = total / n_samples**2 - ((standard**2).mean(axis=0) ** 2).sum()
    of_correlations = n_samples / (n_samples - 1) ** 3 * (of_products - n_samples * of_means)
    if squared <= 0:
        return 1.0, 0.0
    return float(np.clip(of_correlations / squared, 0, 1)), float(squared)


def shrink_covariance(residuals: np.ndarray) -> np.ndarray:
    """Return the covariance of columns, columns × columns, with variances and correlations shrunk.

    Parameters
    ----------
    residuals
        Samples × columns, each column with mean 0.
    """
    variance = shrink_variances(residuals)
    intensity, _ = correlation_shrinkage(residuals)
    scale = np.sqrt((residuals**2).sum(axis=0) / (len(residuals) - 1))
    standard = residuals / np.where(scale > 0, scale, 1)
    correlation = (1 - intensity) * standard.T @ standard / (len(residuals) - 1)
    np.fill_diagonal(correlation, 1)
    return correlation * np.sqrt(np.outer(variance, variance))
