"""RNA content of cells that were normalised to one library size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from pandas.api.types import is_numeric_dtype

from scdeconv._data import keys
from scdeconv._data.checks import UNKNOWN_SIZES, Problems, examples
from scdeconv._data.chunks import first_rows
from scdeconv._data.matrix import Matrix, is_integer, is_lazy
from scdeconv._data.units import have_equal_totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

# columns with the total counts of each cell: scanpy, Seurat, other programs
TOTAL_COLUMNS = ("total_counts", "n_counts", "nCount_RNA", "n_umis", "n_umi", "nUMI", "total_umis", "umi_count")
# number of cells that are inspected; set by hand
N_INSPECTED = 200
# maximum distance from a whole number, and share of the cells, for counts that were divided by a library size
WHOLE_TOLERANCE, MIN_DIVIDED = 1e-3, 0.9


def restore_cell_sizes(problems: Problems, cells: AnnData, cell_sizes: Mapping[str, float] | None) -> str:
    """Multiply normalised cells by their total counts, or report that ``cell_sizes`` are wrong.

    Parameters
    ----------
    problems
        Collected problems.
    cells
        Cells × genes with ``obs["cell_type"]``; ``X`` is replaced if the cells are normalised and their sizes are known.
    cell_sizes
        RNA per cell of each type, in any unit; None: from a column of ``TOTAL_COLUMNS``.

    Returns
    -------
    Source of the sizes: ``"counts"``, the name of the column, ``"cell_sizes"`` or ``"unknown"``.
    """
    rows = first_rows(cells.X)[:N_INSPECTED]
    totals = np.asarray(rows.sum(axis=1), dtype=float).ravel()
    equal = have_equal_totals(totals)
    normalised = not is_integer(rows) and (equal or _are_divided_counts(rows))
    if not normalised:
        if cell_sizes is not None:
            problems.add(
                "Expected normalised cells together with cell_sizes, found counts or other values with a library size of "
                "each cell. Omit cell_sizes: the cells have their sizes."
            )
        return "counts"
    if cell_sizes is not None:
        types = cells.obs[keys.CELL_TYPE].astype(str)
        sizes = pd.Series(dict(cell_sizes), dtype=float).rename(index=str).reindex(types.unique())
        wrong = list(sizes.index[~((sizes > 0) & np.isfinite(sizes))])
        if wrong:
            problems.add(
                f"Expected a positive size of every cell type in cell_sizes, found none for {examples(wrong)}. "
                "Add the missing types."
            )
            return UNKNOWN_SIZES
        source, wanted = "cell_sizes", types.map(sizes).to_numpy(dtype=float)
    else:
        source, wanted = _column_of_totals(cells.obs)
    if source == UNKNOWN_SIZES or not equal:
        return UNKNOWN_SIZES
    cells.X = _multiply_rows(cells.X, wanted / np.median(totals[totals > 0]))
    return source


def _column_of_totals(obs: pd.DataFrame) -> tuple[str, np.ndarray]:
    """Return the first column with total counts that differ between cells."""
    for name in TOTAL_COLUMNS:
        if name in obs and is_numeric_dtype(obs[name]):
            values = obs[name].to_numpy(dtype=float)
            if np.isfinite(values).all() and (values > 0).all() and not have_equal_totals(values):
                return name, values
    return UNKNOWN_SIZES, np.empty(0)


def _are_divided_counts(rows: Matrix) -> bool:
    """Return whether the values of each cell are multiples of its smallest value, as counts divided by a total are."""
    rows = sp.csr_matrix(rows)
    found = []
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        values = rows.data[start:end]
        values = values[values > 0]
        if len(np.unique(values)) > 2:
            multiples = values / values.min()
            found.append(bool((np.abs(multiples - np.rint(multiples)) < WHOLE_TOLERANCE * multiples).all()))
    return bool(found) and float(np.mean(found)) >= MIN_DIVIDED


def _multiply_rows(matrix: Matrix, weights: np.ndarray) -> Matrix:
    """Return the matrix with each row multiplied by its weight; a lazy matrix stays lazy."""
    if not is_lazy(matrix):
        return _multiply_block(matrix, weights[:, None])
    import dask.array as da

    columns = da.from_array(weights[:, None], chunks=(matrix.chunks[0], 1))
    return da.map_blocks(
        _multiply_block, matrix, columns, dtype=np.float64, chunks=matrix.chunks, meta=matrix._meta.astype(np.float64)
    )


def _multiply_block(block: Matrix, weights: np.ndarray) -> Any:
    return sp.csr_matrix(sp.diags(weights.ravel()) @ block) if sp.issparse(block) else block * weights
