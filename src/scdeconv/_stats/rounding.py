"""Removal of rounding errors from differences, whose ratios would otherwise depend on the processor."""

from __future__ import annotations

import numpy as np

ROUNDING = 64 * np.finfo(float).eps
"""Maximum rounding error of a difference relative to the largest value (64 machine epsilons, set by hand)."""


def without_rounding(differences: np.ndarray, values: np.ndarray, axis: int | None = 0) -> np.ndarray:
    """Return differences with those below the rounding error of the largest value along the axis set to 0."""
    error = ROUNDING * np.abs(values).max(axis=axis, keepdims=True, initial=0)
    return np.where(np.abs(differences) <= error, 0.0, differences)


def deviations_from_mean(values: np.ndarray, axis: int | None = 0) -> np.ndarray:
    """Subtract the mean over an axis and set deviations below the rounding error to 0."""
    return without_rounding(values - values.mean(axis=axis, keepdims=True), values, axis)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the ratio; NaN if the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)
