"""Checks of measured fractions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from scdeconv._data.keys import UNMEASURED

from .problems import Problems, examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

# tolerance of the sum of a row of rounded fractions (set by hand)
SUM_TOLERANCE = 0.01
# rows of percent sum to 100, or to less where a part was not measured (set by hand)
PERCENT_SUMS = (20, 101)


def check_fractions(
    problems: Problems, fractions: object, name: str, *, partial: bool = False, may_lack_types: bool = False
) -> None:
    """Refuse fractions that are not a DataFrame of non-negative rows that sum to 1; rows of NaN are accepted.

    Percent, counts, rows with some NaN and rows of zeros are refused, too.

    Parameters
    ----------
    problems
        Collected problems.
    fractions
        Samples × cell types.
    name
        The table in messages.
    partial
        Accept rows that sum to less than 1, because a part of the sample was not measured. With a column "Unmeasured",
        the rows must sum to 1.
    may_lack_types
        Accept rows with NaN for some cell types, which were not measured. Such rows may sum to less than 1.
    """
    before = len(problems.messages)
    check_numeric_table(problems, fractions, name)
    if len(problems.messages) > before:
        return
    assert isinstance(fractions, pd.DataFrame)
    values = fractions.to_numpy(dtype=float, na_value=np.nan)
    lacking = np.isnan(values).any(axis=1)
    missing = np.isnan(values).all(axis=1) if may_lack_types else lacking
    if not may_lack_types:
        check_whole_rows(problems, fractions, name)
    negative = np.flatnonzero((values < 0).any(axis=1))
    if negative.size:
        problems.add(
            f"Expected non-negative fractions in {name}, found {negative.size} rows with negative values (smallest "
            f"{np.nanmin(values):.3g}): {examples(fractions.index[negative])}. "
            "Set them to 0 and divide each row by its sum."
        )
    other_unit = unit_problem(np.where(missing[:, None], np.nan, np.nan_to_num(values)), name)
    if other_unit:
        problems.add(other_unit)
        return
    empty = ~missing & (fractions.drop(columns=UNMEASURED, errors="ignore").sum(axis=1) <= 0).to_numpy()
    if empty.any():
        problems.add(
            f"Expected measured cell types in every row of {name}, found {int(empty.sum())} rows of zeros: "
            f"{examples(fractions.index[empty])}. Set these rows to NaN."
        )
    sums = np.nansum(values, axis=1)
    partial = partial and UNMEASURED not in fractions
    fits = (sums <= 1 + SUM_TOLERANCE) & (partial | lacking | (sums >= 1 - SUM_TOLERANCE))
    off = np.flatnonzero(~missing & ~empty & ~fits)
    if off.size:
        advice = f"Add the remainder as the column {UNMEASURED!r} or divide each row by its sum."
        if partial:
            advice = "Divide each row by its sum, and drop columns that are sums of other types."
        problems.add(
            f"Expected rows of {name} to sum to {'at most 1' if partial else '1'}, found {off.size} rows with sums from "
            f"{sums[off].min():.3g} to {sums[off].max():.3g}: {examples(fractions.index[off])}. {advice}"
        )


def check_numeric_table(problems: Problems, table: object, name: str) -> None:
    """Report a table that is not a DataFrame of numbers."""
    if not isinstance(table, pd.DataFrame):
        problems.add(
            f"Expected a DataFrame of samples × cell types in {name}, found {type(table).__name__}. "
            "Convert it to a DataFrame with cell-type names as columns."
        )
        return
    wrong = [
        column
        for column, dtype in zip(table, table.dtypes, strict=True)
        if not is_numeric_dtype(dtype) or is_bool_dtype(dtype)
    ]
    if wrong:
        problems.add(
            f"Expected numbers in {name}, found {len(wrong)} non-numeric columns: {examples(wrong)}. "
            "Keep only the columns of cell types. Convert numbers that are stored as text with .astype(float)."
        )


def check_whole_rows(problems: Problems, fractions: pd.DataFrame, name: str) -> None:
    """Report rows that are NaN for some cell types but not for all."""
    missing = fractions.isna()
    partly = missing.any(axis=1) & ~missing.all(axis=1)
    if partly.any():
        known = ~missing.all(axis=1)
        never = list(fractions.columns[missing[known].all()])
        problems.add(
            f"Expected rows of {name} without NaN or with NaN only, found {int(partly.sum())} with some NaN: "
            f"{examples(fractions.index[partly])}. Fill in the missing types or set the whole row to NaN."
            + (f" Drop the columns {never}, which were measured in no sample." if never else "")
        )


def unit_problem(values: NDArray, name: str) -> str:
    """Return a message if values (samples × cell types) are percent or counts instead of fractions, else ``""``."""
    values = values[~np.isnan(values).any(axis=1)]
    sums = values.sum(axis=1)
    if not len(values) or not np.isfinite(sums).all() or sums.max() <= 1 + SUM_TOLERANCE:
        return ""
    low, high = PERCENT_SUMS
    found = f"rows that sum to {sums.min():.3g} to {sums.max():.5g}"
    if low <= np.median(sums) and sums.max() <= high:
        whole = np.abs(sums - 100) <= 1
        counts = "" if whole.all() or (values % 1).any() else " or counts"
        way_out = " If they are counts, divide each row by its sum." if counts else ""
        return f"Expected fractions in {name}, found percent{counts} ({found}). Divide the table by 100.{way_out}"
    if not (values % 1).any() and sums.min() > 1:
        return f"Expected fractions in {name}, found counts ({found}, whole numbers). Divide each row by its sum."
    return ""
