"""Ridge regression in closed form, its penalty chosen by leaving whole donors out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from .compositions import centred_log_ratio

if TYPE_CHECKING:
    from collections.abc import Callable

# shares below this are one to the regression: their logarithms are mostly counting noise
FLOOR = 1e-2
# a gene that hardly varies over donors is not blown up to unit variance
LEAST_SD = 0.1
PENALTIES = np.logspace(-4, 1, 16)


@dataclass
class RidgeFit:
    """Coefficients (features × targets), intercept, and the penalty relative to the mean eigenvalue of the kernel."""

    coefficients: np.ndarray
    intercept: np.ndarray
    penalty: float

    def solve(self, x: np.ndarray, depths: np.ndarray | None = None) -> np.ndarray:
        """Return the prediction for rows of features; the depth of a sample does not matter to it."""
        return x @ self.coefficients + self.intercept


def left_out_predictions(
    values: np.ndarray, vectors: np.ndarray, y: np.ndarray, groups: list[np.ndarray], penalty: float
) -> np.ndarray:
    """Return the prediction of every group by a ridge, its intercept free, that was fitted without the group.

    With ``H = 11'/n + K (K + penalty)^-1``, K the kernel of centred features, the residual of a left-out group is
    ``(I - H_gg)^-1 (y - H y)_g``: exact, and no refit.

    Parameters
    ----------
    values, vectors
        Eigenvalues and eigenvectors of K.
    y
        Rows × targets.
    groups
        Rows of each group.
    penalty
        Added to the diagonal of K.
    """
    kept = vectors * (values / (values + penalty))
    residual = y - kept @ (vectors.T @ y) - y.mean(axis=0)
    for rows in groups:
        own = np.eye(len(rows)) - kept[rows] @ vectors[rows].T - 1 / len(y)
        residual[rows] = np.linalg.solve(own, residual[rows])
    return y - residual


def fit_ridge(x: np.ndarray, y: np.ndarray, groups: np.ndarray, error: Callable[[np.ndarray], float]) -> RidgeFit:
    """Fit ``y ~ x`` with the penalty whose predictions of left-out groups have the smallest error.

    Parameters
    ----------
    x
        Rows × features, on one scale.
    y
        Rows × targets.
    groups
        Donor of each row.
    error
        Error of predictions of all rows, on the scale that matters (fractions, where y is their logarithm).

    Returns
    -------
    The fit; the intercept is not penalised.
    """
    centre, level = x.mean(axis=0), y.mean(axis=0)
    features = x - centre
    values, vectors = np.linalg.eigh(features @ features.T)
    values = np.maximum(values, 0)
    unit = float(values.mean()) or 1.0
    best = PENALTIES[-1]
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(rows) > 1:
        errors = [error(left_out_predictions(values, vectors, y, rows, penalty * unit)) for penalty in PENALTIES]
        best = PENALTIES[int(np.argmin(errors))]
    dual = vectors @ ((vectors.T @ (y - level)) / (values + best * unit)[:, None])
    coefficients = features.T @ dual
    return RidgeFit(coefficients, level - centre @ coefficients, float(best))


def fit_log_ratios(x: np.ndarray, fractions: np.ndarray, groups: np.ndarray) -> RidgeFit:
    """Fit centred log-ratios of fractions, the penalty chosen by the squared error of the fractions themselves."""

    def error(predicted: np.ndarray) -> float:
        return float(np.mean((fractions - softmax(predicted, axis=1)) ** 2))

    return fit_ridge(x, centred_log_ratio(fractions, FLOOR), groups, error)
