"""Mean profile of each cell type, by regression of bulk on fractions."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.least_squares import solve_nonnegative

# numerical error of the solver relative to the maximum of a gene: smaller coefficients are set to zero
SOLVER_ERROR = 1e-9
# maximum q-value of significant genes, and maximum share of other genes below the noise threshold; set by hand
ERROR_RATE = 0.05


def regress_on_fractions(fractions: np.ndarray, bulk: np.ndarray) -> np.ndarray:
    """Regress the bulk expression of each gene on the fractions by non-negative least squares.

    Parameters
    ----------
    fractions
        Samples × cell types.
    bulk
        Samples × genes.

    Returns
    -------
    Coefficients, cell types × genes.
    """
    return solve_nonnegative(fractions.T @ fractions, bulk.T @ fractions).T


def standard_errors(fractions: np.ndarray, bulk: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return the least-squares standard errors of the coefficients, cell types × genes.

    The residual variance has (samples - cell types) degrees of freedom, also if coefficients are constrained to zero.
    """
    residual = bulk - fractions @ coefficients
    residual = np.where(np.abs(residual) <= SOLVER_ERROR * bulk.max(axis=0), 0.0, residual)
    residual = (residual**2).sum(axis=0) / (len(bulk) - fractions.shape[1])
    return np.sqrt(np.diag(np.linalg.inv(fractions.T @ fractions))[:, None] * residual)


def geometric_cv(subsampled: np.ndarray) -> np.ndarray:
    """Return ``sqrt(exp(variance of the logs) - 1)`` over the first axis; infinite if a coefficient is zero."""
    positive = (subsampled > 0).all(axis=0)
    logs = np.log(np.where(positive, subsampled, 1))
    return np.where(positive, np.sqrt(np.expm1(logs.var(axis=0, ddof=1))), np.inf)


def noise_threshold(cv: np.ndarray, significant: np.ndarray) -> float:
    """Return the largest coefficient of variation with at most 5 % non-significant genes at or below it."""
    order = np.argsort(cv, kind="stable")
    share = np.cumsum(~significant[order]) / np.arange(1, len(cv) + 1)
    passing = order[(share <= ERROR_RATE) & np.isfinite(cv[order])]
    return float(cv[passing].max(initial=0.0))
