"""What the functions of ``scdeconv.metrics`` share: scoring per cell type, and sections of their docstrings."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, overload

import pandas as pd

from scdeconv._data.fractions import Table, align_fractions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    AnyFunction = TypeVar("AnyFunction", bound=Callable[..., object])

COMPARED = """Parameters
----------
measured, predicted
    Fractions, samples × cell types, finite and not negative. Two DataFrames are aligned by the names of their rows and
    columns; anything else is compared by position."""
PER_TYPE = """per_type
    Score every cell type across samples, instead of all entries together."""
FLOOR = """epsilon
    Smaller fractions are raised to it, as the logarithm of 0 is infinite. The result depends on it where there are zeros."""
FLOAT_OR_SERIES = """Returns
-------
One value over all entries, or with ``per_type=True`` a Series with one value for each cell type."""
MEAN = """Returns
-------
Mean over samples."""
RAISES = """Raises
------
ValueError
    If the two differ in shape, samples or cell types, or a value is missing, infinite or negative."""
PAPER = """Only for comparison with the SimpleDNN table (jasont7/2dRNA), which was computed in this way."""
ONE_VALUE = """Returns
-------
One value for the whole table."""

SECTIONS = {
    "compared": COMPARED,
    "pooled_or_per_type": f"{COMPARED}\n{PER_TYPE}\n\n{FLOAT_OR_SERIES}\n\n{RAISES}",
    "with_floor": f"{COMPARED}\n{FLOOR}\n\n{MEAN}\n\n{RAISES}",
    "as_in_the_paper": f"{PAPER}\n\n{COMPARED}\n\n{ONE_VALUE}\n\n{RAISES}",
    "mean": f"{MEAN}\n\n{RAISES}",
    "raises": RAISES,
}


class Metric(Protocol):
    """A metric over all entries (a float), or per cell type (a Series named by cell type)."""

    __name__: str

    @overload
    def __call__(self, measured: Table, predicted: Table, *, per_type: Literal[False] = False) -> float: ...
    @overload
    def __call__(self, measured: Table, predicted: Table, *, per_type: Literal[True]) -> pd.Series: ...


def with_sections(function: AnyFunction) -> AnyFunction:
    """Replace the names in braces in a docstring by the sections that several metrics share."""
    function.__doc__ = inspect.cleandoc(function.__doc__ or "").format_map(SECTIONS)
    return function


def pooled_or_per_type(by_column: Callable[[NDArray, NDArray], NDArray]) -> Metric:
    """Make a metric of a formula that scores column by column: pooled entries are one long column."""

    def metric(measured: Table, predicted: Table, *, per_type: bool = False) -> float | pd.Series:
        true, estimate, types = align_fractions(measured, predicted)
        if per_type:
            return pd.Series(by_column(true, estimate), index=types, name=by_column.__name__)
        return float(by_column(true.reshape(-1, 1), estimate.reshape(-1, 1))[0])

    # not functools.wraps: the signature shown must be that of the metric
    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(metric, name, getattr(by_column, name))
    return with_sections(metric)  # type: ignore[return-value]
