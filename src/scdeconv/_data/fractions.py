"""Measured beside predicted fractions, aligned by name and checked."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

Table: TypeAlias = ArrayLike | pd.DataFrame


def align_fractions(measured: Table, predicted: Table) -> tuple[NDArray, NDArray, pd.Index]:
    """Return both as finite, non-negative float arrays in the order of `measured`, and the names of the cell types."""
    if isinstance(measured, pd.DataFrame) and isinstance(predicted, pd.DataFrame):
        for axis, what in enumerate(("samples", "cell types")):
            _check_same_names(measured.axes[axis], predicted.axes[axis], what)
        if not predicted.index.equals(measured.index) or not predicted.columns.equals(measured.columns):
            predicted = predicted.loc[measured.index, measured.columns]
    true, estimate = np.asarray(measured, dtype=float), np.asarray(predicted, dtype=float)
    if true.ndim != 2 or true.shape != estimate.shape or true.size == 0:
        msg = (
            f"Expected two tables of the same shape (samples × cell types), found {true.shape} measured and "
            f"{estimate.shape} predicted. Select the same samples and cell types on both sides."
        )
        raise ValueError(msg)
    frame = next((x for x in (measured, predicted) if isinstance(x, pd.DataFrame)), pd.DataFrame(true))
    missing = frame.index[np.isnan(true).any(axis=1)]
    if len(missing):
        msg = (
            f"Expected a measured composition for every sample, found NaN in {len(missing)} of {len(true)} "
            f"(such as {missing[0]!r}). Drop them."
        )
        raise ValueError(msg)
    for name, values in (("measured", true), ("predicted", estimate)):
        bad = ~(np.isfinite(values) & (values >= 0))
        if bad.any():
            msg = (
                f"Expected finite {name} fractions of at least 0, found {bad.sum()} other value(s) "
                f"(such as {values[bad][0]:.3g}). Clip or remove them."
            )
            raise ValueError(msg)
    return true, estimate, frame.columns


def align_compositions(measured: Table, predicted: Table) -> tuple[NDArray, NDArray, pd.Index]:
    """Return what :func:`align_fractions` does, with every sample scaled to sum to one."""
    true, estimate, types = align_fractions(measured, predicted)
    totals = [values.sum(axis=1, keepdims=True) for values in (true, estimate)]
    zeros = max(int((total <= 0).sum()) for total in totals)
    if zeros:
        msg = f"Expected compositions with a positive sum, found {zeros} rows of zeros. Drop them."
        raise ValueError(msg)
    return true / totals[0], estimate / totals[1], types


def align_distance(distance: Table, types: pd.Index) -> NDArray:
    """Return a checked distance between cell types as an array in the order of `types`."""
    if isinstance(distance, pd.DataFrame):
        for names in distance.axes:
            _check_same_names(types, names, "cell types", "in distance")
        distance = distance.loc[types, types]
    cost = np.asarray(distance, dtype=float)
    k = len(types)
    if cost.shape != (k, k) or not np.allclose(cost, cost.T) or np.diag(cost).any() or not (cost >= 0).all():
        msg = (
            f"Expected a symmetric {k} × {k} distance between cell types with a zero diagonal and no negative entry, "
            f"found shape {cost.shape}: {cost.tolist() if k < 5 else '…'}. Pass one row and column per cell type."
        )
        raise ValueError(msg)
    return cost


def _check_same_names(measured: pd.Index, other: pd.Index, what: str, side: str = "predicted") -> None:
    """Both indices must hold the same names, in any order; repeated names only where the order is the same too."""
    if measured.equals(other):
        return
    absent, extra = list(measured.difference(other)), list(other.difference(measured))
    if absent or extra or not (measured.is_unique and other.is_unique):
        msg = (
            f"Expected the same {what}, each once, on both sides, found only measured: {absent[:5]} ({len(absent)}), "
            f"only {side}: {extra[:5]} ({len(extra)}). Rename or select them, or pass arrays to compare by position."
        )
        raise ValueError(msg)
