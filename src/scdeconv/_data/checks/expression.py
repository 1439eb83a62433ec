"""Checks of expression values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from scdeconv._data.chunks import first_rows
from scdeconv._data.matrix import CACHED_VALUES, Matrix, is_integer, is_lazy, stored_values

from .problems import Problems, examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

# log2(x + 1) of bulk is at most about 20, the maximum of TPM or counts is in the thousands (set by hand between them)
MAX_LOG2_EXPRESSION = 25.0


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
    may_be_empty: bool = False,
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
    if empty.size and not may_be_empty:
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
    may_be_empty: bool = False,
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
    report_expression(
        problems, examined, adata, name, logged=logged, may_be_small=may_be_small, may_be_empty=may_be_empty
    )
