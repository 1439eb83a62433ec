"""Checks of expression values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from scdeconv._data.chunks import first_rows
from scdeconv._data.matrix import CACHED_VALUES, Matrix, is_lazy, layer_names, stored_values
from scdeconv._data.units import ARRAY_ADVICE, LOG, SCALED, TOO_LARGE, TOO_SMALL, Summary, find_unit, summarise

from .problems import Problems, examples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData


@dataclass
class Examined:
    """Summary and unusable values of a block of rows, for :func:`report_expression`."""

    summary: Summary
    n_nan: int
    n_infinite: int
    n_negative: int
    unusable: np.ndarray
    """Columns with non-finite values; columns with negative values if all values are finite."""


def examine(matrix: Matrix) -> Examined:
    """Summarise all values of a dense or CSR block of rows."""
    values = stored_values(matrix)
    summary = summarise(matrix)
    n_nan = n_infinite = n_negative = 0
    wrong = np.empty(0, dtype=int)
    # minimum and maximum reveal non-finite values: valid data need no further pass
    if not np.isfinite(summary.largest - summary.smallest):
        n_nan, wrong = int(np.isnan(values).sum()), np.flatnonzero(~np.isfinite(values))
        n_infinite = len(wrong) - n_nan
    elif summary.smallest < 0:
        wrong = np.flatnonzero(values < 0)
        n_negative = len(wrong)
    return Examined(
        summary=summary,
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
    may_be_logged: bool = False,
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
    blocks = [part.summary for part in examined]
    summary = Summary(
        totals=np.concatenate([block.totals for block in blocks]),
        smallest=min(block.smallest for block in blocks),
        largest=max(block.largest for block in blocks),
        whole=all(block.whole for block in blocks),
        n_columns=blocks[0].n_columns,
    )
    unit = LOG if logged and not summary.whole else find_unit(summary)
    if unit == SCALED:
        genes = np.unique(np.concatenate([part.unusable for part in examined]))
        problems.add(
            f"Expected non-negative values in {name}, found {sum(part.n_negative for part in examined)} negative "
            f"(smallest {summary.smallest:.3g}) in {examples(adata.var_names[genes])}: {unit}. "
            "Pass counts or TPM, not scaled or log-ratio values."
        )
    elif unit == TOO_LARGE:
        problems.add(
            f"Expected values below 1e10 in {name}, found values up to {summary.largest:.3g}: {unit}, for example "
            "intensities that were exponentiated although they were linear. Pass the original values."
        )
    elif unit == LOG and not may_be_logged and (logged or not may_be_small):
        advice = ARRAY_ADVICE if summary.smallest > 0 and name == "bulk" else ""
        layers = layer_names(adata)
        layer = f"layer={layers[0] if len(layers) == 1 else 'counts'!r}"
        problems.add(
            f"Expected values on a linear scale in {name}, found {unit} (maximum {summary.largest:.3g}, not "
            f"whole numbers). Pass counts or TPM, e.g. with {layer} or as np.expm1 of the values.{advice}"
        )
    elif unit == TOO_SMALL and not may_be_small and summary.totals.any():
        problems.add(
            f"Expected expression in {name}, found {unit} (maximum {summary.largest:.3g}). Pass counts or TPM, or "
            "multiply the values by a constant."
        )
    empty = np.flatnonzero(summary.totals == 0)
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
    may_be_logged: bool = False,
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
        examined = [examine(rows)]
        name = f"the first {rows.shape[0]} rows of {name}"
    elif sp.issparse(matrix):
        examined = [examine(matrix)]
    else:
        # several passes per block: keep the block in the processor cache
        size = max(1, CACHED_VALUES // matrix.shape[1])
        examined = [examine(matrix[start : start + size]) for start in range(0, len(matrix), size)]
    report_expression(
        problems,
        examined,
        adata,
        name,
        logged=logged,
        may_be_small=may_be_small,
        may_be_logged=may_be_logged,
        # rows of zeros of a lazy matrix are reported after all blocks are read
        may_be_empty=may_be_empty or is_lazy(matrix),
    )
