"""Alignment and checks of measured and predicted fractions, and shared parts of the metrics."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypeVar, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scdeconv._data.checks import checked

if TYPE_CHECKING:
    from collections.abc import Callable

    AnyFunction = TypeVar("AnyFunction", bound=Callable[..., object])

Table: TypeAlias = ArrayLike | pd.DataFrame

COMPARED = """Parameters
----------
measured, predicted
    Fractions, samples × cell types, finite and non-negative. Two DataFrames are aligned by row and column names.
    Other inputs are compared by position."""
PER_TYPE = """per_type
    Return one score per cell type instead of one score over all entries."""
FLOOR = """epsilon
    Lower bound of the fractions, because the logarithm of 0 is infinite. With zeros, the result depends on it."""
FLOAT_OR_SERIES = """Returns
-------
One value over all entries, or a Series with one value per cell type if ``per_type=True``."""
MEAN_OVER_SAMPLES = """Returns
-------
Mean over samples."""
RAISES = """Raises
------
ValueError
    If the inputs differ in shape, samples or cell types, or if a value is missing, infinite or negative."""
PAPER = """Use it only to compare with the SimpleDNN table (jasont7/2dRNA), which was computed in this way."""
ONE_VALUE = """Returns
-------
One value for the whole table."""

SECTIONS = {
    "compared": COMPARED,
    "pooled_or_per_type": f"{COMPARED}\n{PER_TYPE}\n\n{FLOAT_OR_SERIES}\n\n{RAISES}",
    "with_floor": f"{COMPARED}\n{FLOOR}\n\n{MEAN_OVER_SAMPLES}\n\n{RAISES}",
    "as_in_the_paper": f"{PAPER}\n\n{COMPARED}\n\n{ONE_VALUE}\n\n{RAISES}",
    "mean": f"{MEAN_OVER_SAMPLES}\n\n{RAISES}",
    "raises": RAISES,
}


class Metric(Protocol):
    """A metric that returns a float over all entries or a Series per cell type."""

    __name__: str

    @overload
    def __call__(self, measured: Table, predicted: Table, *, per_type: Literal[False] = False) -> float: ...
    @overload
    def __call__(self, measured: Table, predicted: Table, *, per_type: Literal[True]) -> pd.Series: ...


def documented(function: AnyFunction) -> AnyFunction:
    """Check the arguments of a metric, and fill the shared sections into the placeholders of its docstring."""
    function.__doc__ = inspect.cleandoc(function.__doc__ or "").format_map(SECTIONS)
    return checked()(function)


def by_column(formula: Callable[[NDArray, NDArray], NDArray]) -> Metric:
    """Return a metric from a formula that scores columns; pooled entries form one column."""

    def metric(measured: Table, predicted: Table, *, per_type: bool = False) -> float | pd.Series:
        true, estimate, types = align_fractions(measured, predicted)
        if per_type:
            return pd.Series(formula(true, estimate), index=types, name=formula.__name__)
        return float(formula(true.reshape(-1, 1), estimate.reshape(-1, 1))[0])

    # functools.wraps would show the signature of the formula
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(metric, name, getattr(formula, name))
    return documented(metric)  # type: ignore[return-value]


def align_fractions(measured: Table, predicted: Table) -> tuple[NDArray, NDArray, pd.Index]:
    """Return both tables as checked float arrays in the order of `measured`, and the cell-type names."""
    if isinstance(measured, pd.DataFrame) and isinstance(predicted, pd.DataFrame):
        for axis, what in enumerate(("samples", "cell types")):
            _check_same_names(measured.axes[axis], predicted.axes[axis], what)
        if not predicted.index.equals(measured.index) or not predicted.columns.equals(measured.columns):
            predicted = predicted.loc[measured.index, measured.columns]
    true, estimate = np.asarray(measured, dtype=float), np.asarray(predicted, dtype=float)
    if true.ndim != 2 or true.shape != estimate.shape or true.size == 0:
        msg = (
            f"Expected two tables of the same shape (samples × cell types), found {true.shape} measured and "
            f"{estimate.shape} predicted. Select the same samples and cell types in both."
        )
        raise ValueError(msg)
    frame = next((x for x in (measured, predicted) if isinstance(x, pd.DataFrame)), pd.DataFrame(true))
    missing = frame.index[np.isnan(true).any(axis=1)]
    if len(missing):
        msg = (
            f"Expected a measured composition for every sample, found NaN in {len(missing)} of {len(true)} samples "
            f"(e.g. {missing[0]!r}). Drop these samples."
        )
        raise ValueError(msg)
    for name, values in (("measured", true), ("predicted", estimate)):
        bad = ~(np.isfinite(values) & (values >= 0))
        if bad.any():
            msg = (
                f"Expected finite {name} fractions of at least 0, found {bad.sum()} other values "
                f"(e.g. {values[bad][0]:.3g}). Clip or remove them."
            )
            raise ValueError(msg)
    return true, estimate, frame.columns


def align_compositions(measured: Table, predicted: Table) -> tuple[NDArray, NDArray, pd.Index]:
    """Return the tables of :func:`align_fractions` with rows scaled to sum to 1."""
    true, estimate, types = align_fractions(measured, predicted)
    totals = [values.sum(axis=1, keepdims=True) for values in (true, estimate)]
    zeros = max(int((total <= 0).sum()) for total in totals)
    if zeros:
        msg = f"Expected compositions with a positive sum, found {zeros} rows of zeros. Drop these rows."
        raise ValueError(msg)
    return true / totals[0], estimate / totals[1], types


def align_distance(distance: Table, types: pd.Index) -> NDArray:
    """Return the checked distance matrix of the cell types in the order of `types`."""
    if isinstance(distance, pd.DataFrame):
        for names in distance.axes:
            _check_same_names(types, names, "cell types", "in distance")
        distance = distance.loc[types, types]
    cost = np.asarray(distance, dtype=float)
    k = len(types)
    if cost.shape != (k, k) or not np.allclose(cost, cost.T) or np.diag(cost).any() or not (cost >= 0).all():
        msg = (
            f"Expected distance as a symmetric {k} × {k} matrix with a zero diagonal and no negative entry, "
            f"found shape {cost.shape}: {cost.tolist() if k < 5 else '…'}. Pass one row and one column per cell type."
        )
        raise ValueError(msg)
    return cost


def _check_same_names(measured: pd.Index, other: pd.Index, what: str, side: str = "predicted") -> None:
    """Raise ``ValueError`` if the names differ; repeated names are accepted only in identical order."""
    if measured.equals(other):
        return
    absent, extra = list(measured.difference(other)), list(other.difference(measured))
    if absent or extra or not (measured.is_unique and other.is_unique):
        msg = (
            f"Expected the same unique {what} in both tables, found only measured: {absent[:5]} ({len(absent)}), "
            f"only {side}: {extra[:5]} ({len(extra)}). Rename or select them, or pass arrays to compare by position."
        )
        raise ValueError(msg)
