"""Mean expression per cell of each cell type and donor, with equal weights for all cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.chunks import product

if TYPE_CHECKING:
    from anndata import AnnData

TINY = np.finfo(float).tiny


def average_cells(cells: AnnData, cell_types: list[str], genes: pd.Index) -> tuple[np.ndarray, np.ndarray, pd.Index]:
    """Average the cells of each cell type and donor.

    Each cell has the same weight at any library size: the result is the mean relative expression times the mean total.

    Parameters
    ----------
    cells
        Cells × genes, counts, with donor, cell type and total over all genes in ``obs``.
    cell_types
        Names of the cell types.
    genes
        Genes to keep.

    Returns
    -------
    means
        Counts per cell, donors × cell types × genes; zeros without cells.
    n_cells
        Number of cells, donors × cell types.
    donors
        Donor names, in the order of their first cells.
    """
    type_of = pd.Index(cell_types).get_indexer(cells.obs[keys.CELL_TYPE].astype(str))
    donor_of, donors = pd.factorize(cells.obs[keys.DONOR].astype(str))
    totals, n_types = cells.obs["total"].to_numpy(dtype=float), len(cell_types)
    group = donor_of * n_types + type_of
    n_cells = np.bincount(group, minlength=len(donors) * n_types)
    mean_total = np.bincount(group, totals, minlength=len(donors) * n_types) / np.maximum(n_cells, 1)
    weights = (mean_total / np.maximum(n_cells, 1))[group] / np.maximum(totals, TINY)
    rows = sp.csr_matrix((weights, (group, np.arange(len(group)))), shape=(len(n_cells), len(group)))
    means = product(rows, cells.X, sparse=True)[0][:, cells.var_names.get_indexer(genes)].toarray()
    return means.reshape(len(donors), n_types, -1), n_cells.reshape(len(donors), n_types), pd.Index(donors)
