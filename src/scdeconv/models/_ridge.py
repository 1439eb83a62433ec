"""Ridge regression in closed form, its penalty chosen by leaving whole donors out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PENALTIES = np.logspace(-4, 1, 16)
INTERCEPT = 1e3


@dataclass
class RidgeFit:
    """Coefficients (features × targets), intercept, and the penalty relative to the mean eigenvalue of the kernel."""

    coefficients: np.ndarray
    intercept: np.ndarray
    penalty: float


def left_out_error(kernel: np.ndarray, y: np.ndarray, groups: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Return, for each penalty, the mean squared error of predicting every group from the others.

    With ``H = K (K + penalty)^-1`` the residual of a group that was left out is ``(I - H_gg)^-1 (y - H y)_g``: no refit.
    """
    values, vectors = np.linalg.eigh(kernel)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    errors = np.empty(len(penalties))
    for index, penalty in enumerate(penalties):
        hat = (vectors * (values / (values + penalty))) @ vectors.T
        residual = y - hat @ y
        left_out = [np.linalg.solve(np.eye(len(rows)) - hat[np.ix_(rows, rows)], residual[rows]) for rows in members]
        errors[index] = np.mean(np.concatenate(left_out) ** 2)
    return errors


def fit_ridge(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> RidgeFit:
    """Fit ``y ~ x`` with the penalty that predicts left-out groups best.

    Parameters
    ----------
    x
        Rows × features, on one scale.
    y
        Rows × targets.
    groups
        Donor of each row.

    Returns
    -------
    The fit; the intercept is not penalised.
    """
    centre, level = x.mean(axis=0), y.mean(axis=0)
    features = x - centre
    kernel = features @ features.T
    unit = max(float(np.trace(kernel)) / len(x), np.finfo(float).tiny)
    if len(np.unique(groups)) < 2:
        best = float(PENALTIES[-1])
    else:
        # a constant feature with a large value is an intercept that is refitted without each group
        errors = left_out_error(kernel + INTERCEPT * unit, y - level, groups, PENALTIES * unit)
        best = float(PENALTIES[errors.argmin()])
    dual = np.linalg.solve(kernel + best * unit * np.eye(len(x)), y - level)
    coefficients = features.T @ dual
    return RidgeFit(coefficients, level - centre @ coefficients, best)
