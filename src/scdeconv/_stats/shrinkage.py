"""Shrinkage estimators of variances and correlations for few samples."""

from __future__ import annotations

import numpy as np
from scipy.special import digamma, polygamma

# lower bound of variances relative to their median before the logarithm (set by hand)
MIN_VARIANCE_RATIO = 1e-5


def shrink_variances(residuals: np.ndarray) -> np.ndarray:
    """Return the variance of each column, shrunk to the median variance (Opgen-Rhein & Strimmer 2007).

    Parameters
    ----------
    residuals
        Samples × columns, each column with mean 0.

    Returns
    -------
    Variances, length columns. The shrinkage intensity is the summed sampling variance of the variances divided by their
    sum of squared distances from the median.
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
    """Return the shrinkage intensity of correlations and their sum of squares (Schäfer & Strimmer 2005).

    Sums over pairs of columns are computed from the smaller of the two Gram matrices. The cost is linear in the larger
    dimension.

    Parameters
    ----------
    residuals
        Samples × columns, each column with mean 0.

    Returns
    -------
    intensity
        From 0 (no shrinkage) to 1 (all correlations are 0).
    squared
        Sum of squared correlations over pairs of different columns.
    """
    n_samples = len(residuals)
    scale = np.sqrt((residuals**2).sum(axis=0) / (n_samples - 1))
    standard = residuals[:, scale > 0] / scale[scale > 0]
    # both Gram matrices have the same sum of squares
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
    """Return the covariance of columns with shrunk variances and correlations, columns × columns.

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


def trigamma_inverse(value: float) -> float:
    """Solve ``trigamma(y) = value`` by Newton's method on the convex ``1 / trigamma`` (Smyth 2004, appendix)."""
    if value > 1e7:
        return value**-0.5
    if value < 1e-6:
        return 1 / value
    y = 0.5 + 1 / value
    for _ in range(50):
        trigamma = polygamma(1, y)
        step = trigamma * (1 - trigamma / value) / polygamma(2, y)
        y += step
        if abs(step) < 1e-10 * y:
            break
    return float(y)


def fit_variance_prior(variance: np.ndarray, df: float) -> tuple[float, float]:
    """Fit the empirical Bayes prior of the genes' variances.

    The prior is ``d0 s0² / variance ~ chi-square(d0)``. d0 and s0² follow in closed form from mean and variance of the
    log of the observed variances (Smyth 2004, section 6.2).

    Parameters
    ----------
    variance
        Residual variance of each gene.
    df
        Residual degrees of freedom, the same for all genes.

    Returns
    -------
    d0, s0
        Prior degrees of freedom d0 and prior variance s0². If the observed variances vary no more than expected from
        one common variance, d0 is infinite and s0² is their mean. Both are 0 if there are fewer than two genes or if at
        least half of the genes have zero variance.
    """
    median = np.median(variance) if len(variance) > 1 else 0.0
    if not median > 0:
        return 0.0, 0.0
    log = np.log(np.maximum(variance, MIN_VARIANCE_RATIO * median)) - digamma(df / 2) + np.log(df / 2)
    excess = float(log.var(ddof=1) - polygamma(1, df / 2))
    if excess <= 0:
        return np.inf, float(variance.mean())
    d0 = 2 * trigamma_inverse(excess)
    return d0, float(np.exp(log.mean() + digamma(d0 / 2) - np.log(d0 / 2)))


def moderate_variances(variance: np.ndarray, df: float) -> tuple[np.ndarray, float]:
    """Return the moderated (empirical Bayes) variances of the genes and their total degrees of freedom."""
    d0, s0 = fit_variance_prior(variance, df)
    if np.isinf(d0):
        return np.full_like(variance, s0), d0
    return (d0 * s0 + df * variance) / (d0 + df), d0 + df
