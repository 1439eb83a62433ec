"""What single cells say about their cell types and donors: fractions, profiles, pseudobulk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import _keys as keys
from scdeconv._matrix import Matrix, to_dense

if TYPE_CHECKING:
    from collections.abc import Collection

    from mudata import MuData


def indicator(labels: pd.Series, categories: list[str]) -> sp.csr_matrix:
    """Return the matrix categories × cells that is 1 where the cell has the label."""
    codes = pd.Categorical(labels, categories=categories).codes
    cells = np.flatnonzero(codes >= 0)
    ones = np.ones(len(cells), dtype=np.float32)
    return sp.csr_matrix((ones, (codes[cells], cells)), shape=(len(categories), len(labels)))


def count_cells(cells: AnnData, donors: list[str], cell_types: list[str]) -> pd.DataFrame:
    """Return the number of cells of every type in every donor (donors × cell types, int)."""
    counts = pd.crosstab(cells.obs[keys.DONOR].astype(str), cells.obs[keys.CELL_TYPE].astype(str))
    counts = counts.reindex(index=donors, columns=cell_types, fill_value=0)
    return counts.rename_axis(index=None, columns=None).astype(int)


def expect_cells(
    cells: AnnData, probabilities: pd.DataFrame, donors: list[str], cell_types: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return expectation and variance of the numbers of cells (donors × cell types) whose types are uncertain.

    Parameters
    ----------
    cells
        With ``obs["donor"]``.
    probabilities
        Of each cell to be of each type, in the order of ``cells``; rows sum to 1. Cells are independent of each other.
    donors, cell_types
        Rows and columns of the result; zeros for donors without cells.
    """
    donor = cells.obs[keys.DONOR].astype(str).to_numpy()
    tables = (table.groupby(donor).sum() for table in (probabilities, probabilities * (1 - probabilities)))
    expected, variance = (table.reindex(index=donors, columns=cell_types, fill_value=0.0) for table in tables)
    return expected, variance


def round_counts(expected: np.ndarray) -> np.ndarray:
    """Round rows of non-negative numbers to whole ones with the same sum, itself whole, by largest remainder."""
    counts = np.floor(expected).astype(int)
    missing = np.rint(expected.sum(axis=1)).astype(int) - counts.sum(axis=1)
    # rank 0 has the largest remainder; the first of equal ones
    order = np.argsort(counts - expected, axis=1, kind="stable")
    return counts + (np.argsort(order, axis=1) < missing[:, None])


def _dense_sum(rows: sp.csr_matrix, matrix: Matrix) -> np.ndarray:
    return to_dense(rows.astype(np.float64) @ matrix)


class Reference:
    """Profiles of the cell types in absolute units, also without the cells of some donors.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    genes
        Genes to keep.
    """

    def __init__(self, mdata: MuData, genes: pd.Index) -> None:
        given = mdata[keys.PROFILES]
        self.cell_types = list(given.obs[keys.CELL_TYPE])
        self.cells_of: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        if keys.CELLS not in mdata.mod:
            size = given.obs[keys.CELL_SIZE].to_numpy(dtype=float)
            # profiles that were given may be in any unit; their cell sizes put them into counts per cell
            totals = given.obs["total"].to_numpy(dtype=float) if "total" in given.obs else size
            self._given = to_dense(given[:, genes].X) * (size / np.where(totals > 0, totals, 1))[:, None], size
            return
        cells = mdata[keys.CELLS]
        columns = cells.var_names.get_indexer(genes)
        for donor in cells.obs[keys.DONOR].unique():
            mine = cells.obs[cells.obs[keys.DONOR] == donor]
            rows = indicator(mine[keys.CELL_TYPE], self.cell_types)
            expression = cells.X[cells.obs_names.get_indexer(mine.index)]
            sums = _dense_sum(rows, expression)[:, columns]
            self.cells_of[donor] = (
                sums,
                rows @ mine["total"].to_numpy(dtype=float),
                np.asarray(rows.sum(axis=1)).ravel(),
            )

    def profiles(self, without: Collection[str] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Return mean counts per cell (types × genes) and mean total per cell (types), some donors left out."""
        if not self.cells_of:
            return self._given
        # a sum from zero: there may be no donor left
        sums, totals, n_cells = (np.zeros_like(table) for table in next(iter(self.cells_of.values())))
        for donor, tables in self.cells_of.items():
            if donor not in without:
                sums, totals, n_cells = sums + tables[0], totals + tables[1], n_cells + tables[2]
        return sums / np.maximum(n_cells, 1)[:, None], totals / np.maximum(n_cells, 1)


def make_profiles(cells: AnnData, cell_types: list[str]) -> AnnData:
    """Return mean expression per cell (cell types × genes), with ``obs["cell_size_umi"]``, the mean total per cell."""
    rows = indicator(cells.obs[keys.CELL_TYPE], cell_types)
    n_cells = np.asarray(rows.sum(axis=1)).ravel()
    obs = pd.DataFrame(
        {
            keys.CELL_TYPE: list(cell_types),
            keys.CELL_SIZE: rows @ cells.obs["total"].to_numpy(dtype=float) / np.maximum(n_cells, 1),
            "n_cells": n_cells.astype(int),
        },
        index=pd.Index(cell_types, dtype=str),
    )
    means = _dense_sum(rows, cells.X) / np.maximum(n_cells, 1)[:, None]
    return AnnData(means.astype(np.float32), obs=obs, var=cells.var[[]].copy())


def make_pseudobulk(cells: AnnData) -> AnnData:
    """Return the summed expression of each donor's cells (donors × genes)."""
    donors = sorted(cells.obs[keys.DONOR].astype(str).unique())
    rows = indicator(cells.obs[keys.DONOR].astype(str), donors)
    obs = pd.DataFrame(
        {keys.DONOR: donors, "n_cells": np.asarray(rows.sum(axis=1)).ravel().astype(int)},
        index=pd.Index(donors, dtype=str),
    )
    return AnnData(_dense_sum(rows, cells.X).astype(np.float32), obs=obs, var=cells.var[[]].copy())
