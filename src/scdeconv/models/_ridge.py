"""Ridge regression in closed form, its penalty chosen by leaving whole donors out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

PENALTIES = np.logspace(-4, 1, 16)


@dataclass
class RidgeFit:
    """Coefficients (features × targets), intercept, and the penalty relative to the mean eigenvalue of the kernel."""

    coefficients: np.ndarray
    intercept: np.ndarray
    penalty: float


def left_out_predictions(kernel: np.ndarray, y: np.ndarray, groups: np.ndarray, penalty: float) -> np.ndarray:
    """Return the prediction of every group by a ridge, its intercept free, that was fitted without the group.

    With ``H = 11'/n + K (K + penalty)^-1``, ``K`` the kernel of centred features, the residual of a left-out group is
    ``(I - H_gg)^-1 (y - H y)_g``: exact, and no refit.
    """
    hat = np.linalg.solve(kernel + penalty * np.eye(len(kernel)), kernel) + 1 / len(kernel)
    residual = y - hat @ y
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        residual[rows] = np.linalg.solve(np.eye(len(rows)) - hat[np.ix_(rows, rows)], residual[rows])
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
    kernel = features @ features.T
    unit = float(np.trace(kernel)) / len(x) or 1.0
    best = PENALTIES[-1]
    if len(np.unique(groups)) > 1:
        errors = [error(left_out_predictions(kernel, y, groups, penalty * unit)) for penalty in PENALTIES]
        best = PENALTIES[int(np.argmin(errors))]
    dual = np.linalg.solve(kernel + best * unit * np.eye(len(x)), y - level)
    coefficients = features.T @ dual
    return RidgeFit(coefficients, level - centre @ coefficients, float(best))
