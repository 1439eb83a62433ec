"""Completion of partly measured compositions for training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data.checks import SUM_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Mapping

# iterations of the mean composition and the completed rows; set by hand, they converge within 5
N_ITERATIONS = 20


def has_measured(measured: pd.DataFrame) -> np.ndarray:
    """Return a mask of the samples with measured fractions of all or some cell types."""
    known: np.ndarray = measured.notna().any(axis=1).to_numpy()
    return known


def complete_fractions(measured: pd.DataFrame, prior: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Return measured fractions without NaN, completed with the mean composition of the completed rows.

    Parameters
    ----------
    measured
        Samples × cell types, NaN where not measured; no rows of NaN.
    prior
        Mean fractions of types that no row has measured. Other such types get an equal fraction.

    Returns
    -------
    Result of :func:`complete_by` for the mean composition as the estimate of each row.
    """
    values = measured.to_numpy(dtype=float, na_value=np.nan)
    missing = np.isnan(values)
    if not missing.any():
        return measured
    mean = np.array([(prior or {}).get(str(name), 1 / measured.shape[1]) for name in measured.columns])
    counts = (~missing).sum(axis=0)
    mean = np.where(counts > 0, np.nansum(values, axis=0) / np.maximum(counts, 1), mean)
    for _ in range(N_ITERATIONS):
        completed = complete_by(values, np.tile(mean / mean.sum(), (len(values), 1)))
        mean = completed.mean(axis=0)
    return pd.DataFrame(completed, measured.index, measured.columns)


def complete_by(measured: np.ndarray, estimates: np.ndarray) -> np.ndarray:
    """Return measured fractions whose missing values are completed with estimates; rows sum to 1.

    The missing types of a row share what the measured types leave, in proportion to their estimates. If the measured types
    sum to 1, they are shares of the measured types only: the missing types have their estimates, and the measured types
    the rest.

    Parameters
    ----------
    measured
        Samples × cell types, NaN where not measured.
    estimates
        Samples × cell types, rows sum to 1.
    """
    missing = np.isnan(measured)
    rest = 1 - np.nansum(measured, axis=1, keepdims=True)
    # types with measured zeros only share equally
    weights = missing * np.maximum(estimates, np.finfo(float).tiny)
    of_missing = weights.sum(axis=1, keepdims=True)
    total = np.where(rest <= SUM_TOLERANCE, of_missing, rest)
    shares = np.divide(weights, of_missing, out=np.zeros_like(weights), where=of_missing > 0)
    measured_sums = np.maximum(1 - rest, np.finfo(float).tiny)
    filled = np.where(missing, shares * total, measured / measured_sums * (1 - total))
    # complete rows stay as they are
    return np.where(missing.any(axis=1, keepdims=True), filled, measured)
