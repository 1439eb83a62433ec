"""Checks of measured fractions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from .problems import Problems, examples


def check_fractions(problems: Problems, fractions: object, name: str) -> None:
    """Report fractions that are not a DataFrame of non-negative rows that sum to 1; rows of NaN are accepted."""
    if not isinstance(fractions, pd.DataFrame):
        problems.add(
            f"Expected a DataFrame of samples × cell types in {name}, found {type(fractions).__name__}. "
            "Convert it to a DataFrame with cell-type names as columns."
        )
        return
    wrong = [column for column, dtype in zip(fractions, fractions.dtypes, strict=True) if not is_numeric_dtype(dtype)]
    if wrong:
        problems.add(
            f"Expected numbers in {name}, found {len(wrong)} non-numeric columns: {examples(wrong)}. "
            "Keep only the columns of cell types."
        )
        return
    values = fractions.to_numpy(dtype=float)
    missing = np.isnan(values)
    partly = missing.any(axis=1) & ~missing.all(axis=1)
    if partly.any():
        problems.add(
            f"Expected rows of {name} without NaN or with NaN only, found {int(partly.sum())} with some NaN: "
            f"{examples(fractions.index[partly])}. Fill in the missing types or set the whole row to NaN."
        )
    negative = np.flatnonzero((values < 0).any(axis=1))
    if negative.size:
        problems.add(
            f"Expected non-negative fractions in {name}, found {negative.size} rows with negative values (smallest "
            f"{np.nanmin(values):.3g}): {examples(fractions.index[negative])}. "
            "Set them to 0 and divide each row by its sum."
        )
    sums = values.sum(axis=1)
    off = np.flatnonzero(~missing.any(axis=1) & ~(np.abs(sums - 1) <= 0.01))
    if off.size:
        problems.add(
            f"Expected rows of {name} to sum to 1, found {off.size} rows with sums from {sums[off].min():.3g} to "
            f"{sums[off].max():.3g}: {examples(fractions.index[off])}. Add the remainder as another cell type or "
            "divide each row by its sum."
        )
