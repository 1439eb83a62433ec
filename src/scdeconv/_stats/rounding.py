"""Differences that are zero but for rounding.

A ratio of two such differences is noise of the order of 1, and it differs between processors.
"""

from __future__ import annotations

import numpy as np

ROUNDING = 64 * np.finfo(float).eps
"""Largest rounding error of a difference, relative to the largest of the values that it is between."""


def rounding_error(values: np.ndarray, axis: int | None = 0) -> np.ndarray:
    """Return how far rounding may move differences between values; the axis is kept."""
    return ROUNDING * np.abs(values).max(axis=axis, keepdims=True, initial=0)


def deviations_from_mean(values: np.ndarray, axis: int | None = 0) -> np.ndarray:
    """Subtract the mean over an axis. Deviations within rounding are exactly 0, also where all values are the same."""
    deviations = values - values.mean(axis=axis, keepdims=True)
    return np.where(np.abs(deviations) <= rounding_error(values, axis), 0.0, deviations)
