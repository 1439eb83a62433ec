"""Covariance of the samples in a linear model: residual variance, known errors and a random intercept of each donor."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

# variance components relative to the variance of the residuals: bounds (the lower one is as good as 0) and start
BOUNDS, START = (1e-5, 10.0), 0.5
# largest weight of a sample relative to the mean weight: with errors that are wrong, a few samples would dominate (chosen on
# normal data, see docs/benchmarks/weights_of_samples.md)
MAX_WEIGHT = 2.0


def stack_clusters(codes: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each cluster, as one array (clusters × rows) for each size of clusters."""
    order = np.argsort(codes, kind="stable")
    clusters = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
    return [
        np.array([rows for rows in clusters if len(rows) == size]) for size in sorted({len(rows) for rows in clusters})
    ]


def whiten(
    values: np.ndarray, stacks: list[np.ndarray], variance: np.ndarray, between: float
) -> tuple[np.ndarray, float]:
    """Return values (samples × columns) with independent rows of unit variance, and the log determinant.

    Parameters
    ----------
    values
        Response and design matrix.
    stacks
        Clusters of :func:`stack_clusters`.
    variance
        Variance of each sample within its cluster.
    between
        Variance of the random intercept of the clusters.
    """
    whitened, log_determinant = np.empty_like(values), 0.0
    for rows in stacks:
        covariance = np.full((*rows.shape, rows.shape[1]), between, dtype=float)
        np.einsum("cii->ci", covariance)[...] += variance[rows]
        root = np.linalg.cholesky(covariance)
        whitened[rows] = np.linalg.solve(root, values[rows])
        log_determinant += 2 * np.log(np.einsum("cii->ci", root)).sum()
    return whitened, log_determinant


def estimate_components(
    response: np.ndarray, matrix: np.ndarray, stacks: list[np.ndarray], errors: np.ndarray, *, has_intercepts: bool
) -> tuple[float, float]:
    """Return the variances within and between clusters by restricted maximum likelihood (REML).

    Parameters
    ----------
    response
        Value of each sample.
    matrix
        Design matrix of full rank, samples × columns.
    stacks
        Clusters of :func:`stack_clusters`.
    errors
        Known variance of the error of each value, in addition to the variance within clusters.
    has_intercepts
        Whether clusters have a random intercept; otherwise the variance between clusters is 0.
    """
    residuals = response - matrix @ np.linalg.lstsq(matrix, response, rcond=None)[0]
    scale = residuals @ residuals / (len(response) - matrix.shape[1])
    values = np.column_stack([response, matrix])

    def deviance(shares: np.ndarray) -> float:
        whitened, log_determinant = whiten(values, stacks, scale * shares[0] + errors, scale * shares[1:].sum())
        upper = np.linalg.qr(whitened[:, 1:])
        left = whitened[:, 0] - upper.Q @ (upper.Q.T @ whitened[:, 0])
        return log_determinant + 2 * np.log(np.abs(np.diag(upper.R))).sum() + left @ left

    size = 2 if has_intercepts else 1
    shares = minimize(deviance, np.full(size, START), method="L-BFGS-B", bounds=[BOUNDS] * size).x
    return float(scale * shares[0]), float(scale * shares[1:].sum())


def limit_weights(variance: np.ndarray) -> np.ndarray:
    """Return variances of samples whose weights (1 / variance) are at most twice the mean weight."""
    weights = 1 / variance
    # the mean falls with the limit: converges to the common limit
    for _ in range(100):
        limited = np.minimum(weights, MAX_WEIGHT * weights.mean())
        if np.array_equal(limited, weights):
            break
        weights = limited
    return 1 / weights
