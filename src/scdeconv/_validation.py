"""Checks of the user's input: every problem is collected, then all are reported at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ._matrix import Matrix, is_integer, stored_values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anndata import AnnData

# the largest log2(x + 1) of a bulk sample is about 20, the largest TPM or count is in the thousands
LARGEST_LOG_VALUE = 25.0


class Problems:
    """A list of problems that is raised as one ``ValueError``."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        """Remember one problem, written as "Expected X, found Y. Do Z."."""
        self.messages.append(message)

    def raise_if_any(self) -> None:
        """Raise a ``ValueError`` that lists every problem, if there is one."""
        if not self.messages:
            return
        count = f"{len(self.messages)} problem{'s' if len(self.messages) > 1 else ''}"
        lines = [f"  {number}. {message}" for number, message in enumerate(self.messages, start=1)]
        raise ValueError("\n".join([f"{self.title}: {count} found.", *lines]))


def examples(values: Iterable[object], n: int = 3) -> str:
    """Return the first few values as text, with the number of the others."""
    items = [str(value) for value in values]
    more = f" and {len(items) - n} more" if len(items) > n else ""
    return ", ".join(repr(item) for item in items[:n]) + more


def check_names(problems: Problems, adata: AnnData, name: str, *, genes: bool = True) -> None:
    """Report sample names, and gene names unless told otherwise, that occur more than once."""
    if not adata.obs_names.is_unique:
        repeated = adata.obs_names[adata.obs_names.duplicated()].unique()
        problems.add(
            f"Expected unique {name}.obs_names, found {len(repeated)} repeated: {examples(repeated)}. "
            f"Call {name}.obs_names_make_unique()."
        )
    if genes and not adata.var_names.is_unique:
        repeated = adata.var_names[adata.var_names.duplicated()].unique()
        problems.add(
            f"Expected unique gene names in {name}, found {len(repeated)} repeated: {examples(repeated)}. "
            'Pass duplicates="sum" to pp.pair, or make them unique.'
        )


def check_expression(
    problems: Problems,
    adata: AnnData,
    matrix: Matrix,
    name: str,
    *,
    logged: bool = False,
    may_be_small: bool = False,
) -> None:
    """Report values that cannot be expression on a linear scale."""
    values = stored_values(matrix)
    if values.size == 0 and 0 in matrix.shape:
        problems.add(f"Expected samples and genes in {name}, found shape {matrix.shape}.")
        return
    if not np.issubdtype(values.dtype, np.number):
        problems.add(f"Expected numbers in {name}, found dtype {values.dtype}.")
        return
    n_nan, n_inf = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if n_nan or n_inf:
        problems.add(
            f"Expected finite values in {name}, found {n_nan} NaN and {n_inf} infinite. Remove or impute those genes."
        )
        return
    negative = values < 0
    if negative.any():
        problems.add(
            f"Expected non-negative values in {name}, found {int(negative.sum())} negative (smallest {values.min():.3g}). "
            "Pass counts or TPM, not scaled or log-ratio values."
        )
        return
    largest = float(values.max()) if values.size else 0.0
    if (logged or (largest < LARGEST_LOG_VALUE and not may_be_small)) and not is_integer(matrix):
        problems.add(
            f"Expected linear values in {name}, found log-transformed ones (largest value {largest:.3g}, not whole "
            'numbers). Pass counts or TPM: a layer with layer="counts", or np.expm1 of the values.'
        )
    empty = np.flatnonzero(np.asarray(matrix.sum(axis=1)).ravel() == 0)
    if empty.size:
        problems.add(
            f"Expected expression in every row of {name}, found {empty.size} rows of zeros: "
            f"{examples(adata.obs_names[empty])}. Remove them."
        )


def check_cell_type_names(problems: Problems, cell_types: Iterable[object], name: str) -> None:
    """Report cell types that cannot be column names of a file (``/``) or that are repeated."""
    names = pd.Index([str(item) for item in cell_types])
    slashed = [item for item in names if "/" in item]
    if slashed:
        problems.add(
            f"Expected cell-type names without '/', found {examples(slashed)} in {name}: "
            "h5ad files cannot hold such columns. Rename them, e.g. 'NK/T' to 'NK-T'."
        )
    if not names.is_unique:
        problems.add(f"Expected every cell type once in {name}, found {examples(names[names.duplicated()])} repeated.")


def check_fractions(problems: Problems, fractions: object, name: str) -> None:
    """Report fractions that are not a table of non-negative rows that sum to 1 (rows of NaN are unknown)."""
    if not isinstance(fractions, pd.DataFrame):
        problems.add(
            f"Expected a DataFrame of samples × cell types in {name}, found {type(fractions).__name__}. "
            "Its columns must name the cell types."
        )
        return
    values = fractions.to_numpy(dtype=float)
    missing = np.isnan(values)
    partly = missing.any(axis=1) & ~missing.all(axis=1)
    if partly.any():
        problems.add(
            f"Expected rows of {name} to be known or all NaN, found {int(partly.sum())} with some NaN: "
            f"{examples(fractions.index[partly])}."
        )
    known = values[~missing.any(axis=1)]
    if (known < 0).any():
        problems.add(f"Expected non-negative fractions in {name}, found {known.min():.3g}.")
    sums = known.sum(axis=1)
    off = np.abs(sums - 1) > 0.01
    if off.any():
        problems.add(
            f"Expected rows of {name} to sum to 1, found {int(off.sum())} rows with sums from {sums[off].min():.3g} to "
            f"{sums[off].max():.3g}. Add the remainder as a cell type of its own or divide each row by its sum."
        )
