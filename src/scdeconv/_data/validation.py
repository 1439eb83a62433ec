"""Checks of the user's input: every problem is collected, then all are reported at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from pandas.api.types import is_numeric_dtype

from scdeconv._data.chunks import first_rows
from scdeconv._data.matrix import CACHED_VALUES, Matrix, is_integer, is_lazy, stored_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def check_names(problems: Problems, obs_names: pd.Index, var_names: pd.Index, name: str) -> None:
    """Report names of samples and genes that occur more than once."""
    if not obs_names.is_unique:
        repeated = obs_names[obs_names.duplicated()].unique()
        problems.add(
            f"Expected unique {name}.obs_names, found {len(repeated)} repeated: {examples(repeated)}. "
            f"Call {name}.obs_names_make_unique()."
        )
    if not var_names.is_unique:
        repeated = var_names[var_names.duplicated()].unique()
        problems.add(
            f"Expected unique gene names in {name}, found {len(repeated)} repeated: {examples(repeated)}. "
            'Add them up, as pp.pair does with duplicates="sum", or make them unique.'
        )


@dataclass
class Examined:
    """What the values of some rows are like, for :func:`report_expression`."""

    totals: np.ndarray
    largest: float
    smallest: float
    whole: bool
    n_nan: int
    n_infinite: int
    n_negative: int
    unusable: np.ndarray
    """Genes with values that are not finite; where there are none, those with negative ones."""


def examine(matrix: Matrix) -> Examined:
    """Look at all values of some rows, dense or CSR."""
    values = stored_values(matrix)
    largest, smallest = float(values.max(initial=0)), float(values.min(initial=0))
    n_nan = n_infinite = n_negative = 0
    wrong = np.empty(0, dtype=int)
    # what is not finite shows in the extremes, so that sound values are looked at few times
    if not np.isfinite(largest - smallest):
        n_nan, wrong = int(np.isnan(values).sum()), np.flatnonzero(~np.isfinite(values))
        n_infinite = len(wrong) - n_nan
    elif smallest < 0:
        wrong = np.flatnonzero(values < 0)
        n_negative = len(wrong)
    return Examined(
        totals=np.asarray(matrix.sum(axis=1)).ravel(),
        largest=largest,
        smallest=smallest,
        whole=is_integer(matrix),
        n_nan=n_nan,
        n_infinite=n_infinite,
        n_negative=n_negative,
        unusable=np.unique(matrix.indices[wrong] if sp.issparse(matrix) else wrong % matrix.shape[1]),
    )


def report_expression(
    problems: Problems,
    examined: Sequence[Examined],
    adata: AnnData,
    name: str,
    *,
    logged: bool = False,
    may_be_small: bool = False,
) -> None:
    """Report values, in all rows or the first of them, that cannot be expression on a linear scale."""
    n_nan, n_infinite = sum(part.n_nan for part in examined), sum(part.n_infinite for part in examined)
    if n_nan or n_infinite:
        genes = np.unique(np.concatenate([part.unusable for part in examined if part.n_nan or part.n_infinite]))
        problems.add(
            f"Expected finite values in {name}, found {n_nan} NaN and {n_infinite} infinite "
            f"in {examples(adata.var_names[genes])}. Remove or impute those genes."
        )
        return
    n_negative, smallest = sum(part.n_negative for part in examined), min(part.smallest for part in examined)
    if n_negative:
        genes = np.unique(np.concatenate([part.unusable for part in examined]))
        problems.add(
            f"Expected non-negative values in {name}, found {n_negative} negative (smallest {smallest:.3g}) "
            f"in {examples(adata.var_names[genes])}. Pass counts or TPM, not scaled or log-ratio values."
        )
        return
    largest = max(part.largest for part in examined)
    if (logged or (largest < LARGEST_LOG_VALUE and not may_be_small)) and not all(part.whole for part in examined):
        problems.add(
            f"Expected linear values in {name}, found log-transformed ones (largest value {largest:.3g}, not whole "
            'numbers). Pass counts or TPM: a layer with layer="counts", or np.expm1 of the values.'
        )
    empty = np.flatnonzero(np.concatenate([part.totals for part in examined]) == 0)
    if empty.size:
        problems.add(
            f"Expected expression in every row of {name}, found {empty.size} rows of zeros: "
            f"{examples(adata.obs_names[empty])}. Remove them."
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
    """Report values that cannot be expression on a linear scale; of a lazy matrix, look at the first block of rows."""
    if 0 in matrix.shape:
        problems.add(f"Expected samples and genes in {name}, found shape {matrix.shape}.")
        return
    if not np.issubdtype(matrix.dtype, np.number):
        problems.add(f"Expected numbers in {name}, found dtype {matrix.dtype}.")
        return
    if is_lazy(matrix):
        rows = first_rows(matrix)
        # whoever reads the others will find all rows of zeros
        examined = [replace(examine(rows), totals=np.empty(0))]
        name = f"the first {rows.shape[0]} rows of {name}"
    elif sp.issparse(matrix):
        examined = [examine(matrix)]
    else:
        # blocks that stay in the processor's cache
        size = max(1, CACHED_VALUES // matrix.shape[1])
        examined = [examine(matrix[start : start + size]) for start in range(0, len(matrix), size)]
    report_expression(problems, examined, adata, name, logged=logged, may_be_small=may_be_small)


def check_key(key: str | None) -> None:
    """Raise ``ValueError`` for a key of ``key_added=`` that files cannot hold: anndata 0.13 refuses to write a ``/``."""
    if key is not None and (not key or "/" in key):
        msg = f"Expected key_added without '/', found {key!r}; h5ad files cannot hold such a key. Choose another."
        raise ValueError(msg)


def check_cell_type_names(problems: Problems, cell_types: Iterable[object], name: str) -> None:
    """Report cell types that cannot be column names of a file (``/``) or that are repeated."""
    names = pd.Index([str(item) for item in cell_types])
    slashed = [item for item in names if "/" in item]
    if slashed:
        problems.add(
            f"Expected cell-type names without '/', found {len(slashed)} in {name}: {examples(slashed)}; "
            "h5ad files cannot hold such columns. Rename them, e.g. 'NK/T' to 'NK-T'."
        )
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        problems.add(
            f"Expected every cell type once in {name}, found {len(repeated)} repeated: {examples(repeated)}. "
            "Add them up or rename them."
        )


def check_fractions(problems: Problems, fractions: object, name: str) -> None:
    """Report fractions that are not a table of non-negative rows that sum to 1 (rows of NaN are unknown)."""
    if not isinstance(fractions, pd.DataFrame):
        problems.add(
            f"Expected a DataFrame of samples × cell types in {name}, found {type(fractions).__name__}. "
            "Its columns must name the cell types."
        )
        return
    wrong = [column for column, dtype in zip(fractions, fractions.dtypes, strict=True) if not is_numeric_dtype(dtype)]
    if wrong:
        problems.add(
            f"Expected numbers in {name}, found {len(wrong)} columns of other values: {examples(wrong)}. "
            "Keep only columns of cell types."
        )
        return
    values = fractions.to_numpy(dtype=float)
    missing = np.isnan(values)
    partly = missing.any(axis=1) & ~missing.all(axis=1)
    if partly.any():
        problems.add(
            f"Expected rows of {name} to be known or all NaN, found {int(partly.sum())} with some NaN: "
            f"{examples(fractions.index[partly])}. Fill in the missing types or set the whole row to NaN."
        )
    negative = np.flatnonzero((values < 0).any(axis=1))
    if negative.size:
        problems.add(
            f"Expected non-negative fractions in {name}, found {negative.size} rows with negative ones (smallest "
            f"{np.nanmin(values):.3g}): {examples(fractions.index[negative])}. Set them to 0 and divide each row by its sum."
        )
    sums = values.sum(axis=1)
    off = np.flatnonzero(~missing.any(axis=1) & ~(np.abs(sums - 1) <= 0.01))
    if off.size:
        problems.add(
            f"Expected rows of {name} to sum to 1, found {off.size} rows with sums from {sums[off].min():.3g} to "
            f"{sums[off].max():.3g}: {examples(fractions.index[off])}. Add the remainder as a cell type of its own or "
            "divide each row by its sum."
        )
