"""Shared parts of the metrics: docstring sections, and metrics from formulas of columns."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, overload

import pandas as pd

from scdeconv._data.checks import checked

from .align import Table, align_fractions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    AnyFunction = TypeVar("AnyFunction", bound=Callable[..., object])

COMPARED = """Parameters
----------
measured, predicted
    Fractions, samples × cell types, finite and non-negative. Two DataFrames are aligned by row and column names. If only
    one has the column "Unmeasured", or if measured rows sum to less than 1, the other types of this table are compared
    after dividing each row by its sum over them, with a warning. Other inputs are compared by position."""
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
    If the inputs differ in shape, samples or cell types (with a proposal for other spellings), if one is in percent or
    counts, or if a value is missing, infinite or negative."""
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
