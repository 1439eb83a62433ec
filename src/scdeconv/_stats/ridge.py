"""Ridge regression in closed form with the penalty chosen by leave-one-donor-out cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from scdeconv._process import one_blas_thread

from .compositions import centred_log_ratio

if TYPE_CHECKING:
    from collections.abc import Callable

# lower bound of fractions before the logarithm: smaller ones are mostly counting noise (set by hand)
FLOOR = 1e-2
# SD of log expression that is added before scaling, so that noise of constant genes is not amplified (set by hand)
LEAST_SD = 0.1
# candidate penalties relative to the mean eigenvalue of the kernel (set by hand)
PENALTIES = np.logspace(-4, 1, 16)


@dataclass
class RidgeFit:
    """Coefficients (features × targets), intercept, and penalty relative to the mean eigenvalue of the kernel."""

    coefficients: np.ndarray
    intercept: np.ndarray
    penalty: float

    def solve(self, x: np.ndarray, depths: np.ndarray | None = None) -> np.ndarray:
        """Return the predictions of rows of features; ``depths`` is ignored."""
        return x @ self.coefficients + self.intercept


def left_out_predictions(
    values: np.ndarray, vectors: np.ndarray, y: np.ndarray, groups: list[np.ndarray], penalty: float
) -> np.ndarray:
    """Return leave-one-group-out predictions of a ridge with unpenalised intercept, without refitting.

    With ``H = 11'/n + K (K + penalty)^-1`` and K the kernel of centred features, the residual of a left-out group g is
    exactly ``(I - H_gg)^-1 (y - H y)_g``.

    Parameters
    ----------
    values, vectors
        Eigenvalues and eigenvectors of K.
    y
        Rows × targets.
    groups
        Rows of each group.
    penalty
        Penalty that is added to the diagonal of K.
    """
    kept = vectors * (values / (values + penalty))
    residual = y - kept @ (vectors.T @ y) - y.mean(axis=0)
    for rows in groups:
        own = np.eye(len(rows)) - kept[rows] @ vectors[rows].T - 1 / len(y)
        residual[rows] = np.linalg.solve(own, residual[rows])
    return y - residual


# the last digits of products and eigenvectors of large matrices depend on the number of threads
@one_blas_thread()
def fit_ridge(
    x: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    error: Callable[[np.ndarray], float],
    more: tuple[np.ndarray, np.ndarray] | None = None,
) -> RidgeFit:
    """Fit ``y ~ x`` with the penalty that minimises the error of leave-one-group-out predictions.

    Parameters
    ----------
    x
        Rows × features, all on the same scale.
    y
        Rows × targets.
    groups
        Donor of each row.
    error
        Function that returns the error of the predictions of all rows, for example on the scale of fractions.
    more
        Features and targets of further rows, which are derived from the donors. They have no part in the choice of the
        penalty, which is then scaled to the number of rows.

    Returns
    -------
    The fit with unpenalised intercept.
    """
    values, vectors = _kernel(x)
    unit = float(values.mean()) or 1.0
    best = PENALTIES[-1]
    rows = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(rows) > 1:
        errors = [error(left_out_predictions(values, vectors, y, rows, penalty * unit)) for penalty in PENALTIES]
        best = PENALTIES[int(np.argmin(errors))]
    penalty = best * unit
    if more is not None:
        penalty *= (len(x) + len(more[0])) / len(x)
        x, y = np.vstack([x, more[0]]), np.vstack([y, more[1]])
        values, vectors = _kernel(x)
    centre, level = x.mean(axis=0), y.mean(axis=0)
    dual = vectors @ ((vectors.T @ (y - level)) / (values + penalty)[:, None])
    coefficients = (x - centre).T @ dual
    return RidgeFit(coefficients, level - centre @ coefficients, float(best))


def _kernel(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues and eigenvectors of the kernel of centred features."""
    features = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(features @ features.T)
    return np.maximum(values, 0), vectors


def fit_log_ratios(
    x: np.ndarray, fractions: np.ndarray, groups: np.ndarray, more: tuple[np.ndarray, np.ndarray] | None = None
) -> RidgeFit:
    """Fit centred log-ratios with the penalty that minimises the squared error of the fractions.

    ``more`` are features and fractions of further rows, as for :func:`fit_ridge`.
    """

    def error(predicted: np.ndarray) -> float:
        return float(np.mean((fractions - softmax(predicted, axis=1)) ** 2))

    further = None if more is None else (more[0], centred_log_ratio(more[1], FLOOR))
    return fit_ridge(x, centred_log_ratio(fractions, FLOOR), groups, error, further)
