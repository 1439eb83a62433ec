"""Trend of the residual variance with the mean expression of a gene."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

# iterations of the reweighted fit (set by hand); the coefficients change little after five
N_ITERATIONS = 20


def fit_variance_trend(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Fit ``variance = a + b mean + c mean²`` over genes, with coefficients of at least 0.

    a is background noise, b the counting noise (Poisson) and c the squared coefficient of variation of noise in
    proportion to expression. The fit is a gamma regression of ``variance / mean²`` by iteratively reweighted
    non-negative least squares: each gene has the same relative error.

    Parameters
    ----------
    mean, variance
        Mean expression and residual variance, length genes. Genes without expression or variance are ignored.

    Returns
    -------
    a, b and c.
    """
    used = (mean > 0) & (variance > 0)
    if not used.any():
        return np.array([0.0, 0.0, 1.0])
    # unit mean expression: coefficients of similar size
    unit = float(np.median(mean[used]))
    scaled = mean[used] / unit
    target = variance[used] / mean[used] ** 2
    columns = np.column_stack([scaled**-2, 1 / scaled, np.ones_like(scaled)])
    fitted = np.full_like(target, np.median(target))
    coefficients = np.array([0.0, 0.0, 1.0])
    for _ in range(N_ITERATIONS):
        coefficients = nnls(columns / fitted[:, None], target / fitted)[0]
        fitted = np.maximum(columns @ coefficients, np.finfo(float).tiny)
    return coefficients * np.array([unit**2, unit, 1.0])


def expected_variance(coefficients: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return the variance of the trend of :func:`fit_variance_trend` at the given mean expression."""
    a, b, c = coefficients
    return a + b * mean + c * mean**2
