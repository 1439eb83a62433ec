"""What single cells say about their cell types and donors: fractions, profiles, pseudobulk."""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scdeconv import _keys as keys
from scdeconv._matrix import Matrix, to_dense


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


def _dense_sum(rows: sp.csr_matrix, matrix: Matrix) -> np.ndarray:
    return to_dense(rows.astype(np.float64) @ matrix)


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
