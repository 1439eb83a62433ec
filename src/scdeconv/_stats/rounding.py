"""Differences that are zero but for rounding.

A ratio of two such differences is noise of the order of 1, and it differs between processors.
"""

from __future__ import annotations

import numpy as np

ROUNDING = 64 * np.finfo(float).eps
"""Largest rounding error of a difference, relative to the largest of the values that it is between."""


def without_rounding(differences: np.ndarray, values: np.ndarray, axis: int | None = 0) -> np.ndarray:
    """Return differences between values, exactly 0 where they are within rounding of the largest value along the axis."""
    error = ROUNDING * np.abs(values).max(axis=axis, keepdims=True, initial=0)
    return np.where(np.abs(differences) <= error, 0.0, differences)


def deviations_from_mean(values: np.ndarray, axis: int | None = 0) -> np.ndarray:
    """Subtract the mean over an axis. Deviations within rounding are exactly 0, also where all values are the same."""
    return without_rounding(values - values.mean(axis=axis, keepdims=True), values, axis)


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with NaN where the denominator is not positive."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)
