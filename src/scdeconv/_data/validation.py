"""Checks of user input that collect all problems and report them in one error."""

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

# log2(x + 1) of bulk is at most about 20, the maximum of TPM or counts is in the thousands (set by hand between them)
MAX_LOG2_EXPRESSION = 25.0


class Problems:
    """Collected problems that are raised as one ``ValueError``."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        """Add one message of the form "Expected X, found Y. Do Z."."""
        self.messages.append(message)

    def raise_if_any(self) -> None:
        """Raise a ``ValueError`` that lists all problems, if there are any."""
        if not self.messages:
            return
        count = f"{len(self.messages)} problem{'s' if len(self.messages) > 1 else ''}"
        lines = [f"  {number}. {message}" for number, message in enumerate(self.messages, start=1)]
        raise ValueError("\n".join([f"{self.title}: {count} found.", *lines]))


def examples(values: Iterable[object], n: int = 3) -> str:
    """Return the first values as text and the number of remaining values."""
    items = [str(value) for value in values]
    more = f" and {len(items) - n} more" if len(items) > n else ""
    return ", ".join(repr(item) for item in items[:n]) + more


def check_names(problems: Problems, obs_names: pd.Index, var_names: pd.Index, name: str) -> None:
    """Report duplicate sample and gene names."""
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
            'Sum them, as pp.pair does with duplicates="sum", or make them unique.'
        )


@dataclass
class Examined:
    """Summary of the values of a block of rows, for :func:`report_expression`."""

    totals: np.ndarray
    largest: float
    smallest: float
    whole: bool
    n_nan: int
    n_infinite: int
    n_negative: int
    unusable: np.ndarray
    """Columns with non-finite values; columns with negative values if all values are finite."""


def examine(matrix: Matrix) -> Examined:
    """Summarise all values of a dense or CSR block of rows."""
    values = stored_values(matrix)
    largest, smallest = float(values.max(initial=0)), float(values.min(initial=0))
    n_nan = n_infinite = n_negative = 0
    wrong = np.empty(0, dtype=int)
    # minimum and maximum reveal non-finite values: valid data need no further pass
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
    """Report values that are not expression on a linear scale, from summaries of row blocks."""
    n_nan, n_infinite = sum(part.n_nan for part in examined), sum(part.n_infinite for part in examined)
    if n_nan or n_infinite:
        genes = np.unique(np.concatenate([part.unusable for part in examined if part.n_nan or part.n_infinite]))
        problems.add(
            f"Expected finite values in {name}, found {n_nan} NaN and {n_infinite} infinite "
            f"in {examples(adata.var_names[genes])}. Remove or impute these genes."
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
    if (logged or (largest < MAX_LOG2_EXPRESSION and not may_be_small)) and not all(part.whole for part in examined):
        problems.add(
            f"Expected values on a linear scale in {name}, found log-transformed values (maximum {largest:.3g}, not "
            'whole numbers). Pass counts or TPM, e.g. with layer="counts" or as np.expm1 of the values.'
        )
    empty = np.flatnonzero(np.concatenate([part.totals for part in examined]) == 0)
    if empty.size:
        problems.add(
            f"Expected expression in every row of {name}, found {empty.size} rows of zeros: "
            f"{examples(adata.obs_names[empty])}. Remove these rows."
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
    """Report values that are not expression on a linear scale; of a lazy matrix, check only the first block of rows."""
    if 0 in matrix.shape:
        problems.add(f"Expected samples and genes in {name}, found shape {matrix.shape}. Pass non-empty data.")
        return
    if not np.issubdtype(matrix.dtype, np.number):
        problems.add(f"Expected numbers in {name}, found dtype {matrix.dtype}. Convert the values to numbers.")
        return
    if is_lazy(matrix):
        rows = first_rows(matrix)
        # rows of zeros are reported after all blocks are read
        examined = [replace(examine(rows), totals=np.empty(0))]
        name = f"the first {rows.shape[0]} rows of {name}"
    elif sp.issparse(matrix):
        examined = [examine(matrix)]
    else:
        # several passes per block: keep the block in the processor cache
        size = max(1, CACHED_VALUES // matrix.shape[1])
        examined = [examine(matrix[start : start + size]) for start in range(0, len(matrix), size)]
    report_expression(problems, examined, adata, name, logged=logged, may_be_small=may_be_small)


def check_key(key: str | None) -> None:
    """Raise ``ValueError`` if ``key_added`` is empty or contains ``/``, which anndata 0.13 cannot write."""
    if key is not None and (not key or "/" in key):
        msg = (
            f"Expected a non-empty key_added without '/', found {key!r}. h5ad files do not support such keys. "
            "Choose another key."
        )
        raise ValueError(msg)


def check_cell_type_names(problems: Problems, cell_types: Iterable[object], name: str) -> None:
    """Report cell-type names that contain ``/`` or are repeated."""
    names = pd.Index([str(item) for item in cell_types])
    slashed = [item for item in names if "/" in item]
    if slashed:
        problems.add(
            f"Expected cell-type names without '/' in {name}, found {len(slashed)}: {examples(slashed)}. "
            "h5ad files do not support such column names. Rename them, e.g. 'NK/T' to 'NK-T'."
        )
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        problems.add(
            f"Expected unique cell types in {name}, found {len(repeated)} repeated: {examples(repeated)}. "
            "Sum or rename them."
        )


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
