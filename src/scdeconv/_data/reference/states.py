"""Summed cells of each cell state and donor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.matrix import to_dense

from .sums import membership, sum_pairs

if TYPE_CHECKING:
    from collections.abc import Collection

    from anndata import AnnData


class CellStates:
    """Summed cells of each cell state and donor; the cells are read once.

    Parameters
    ----------
    cells
        Cells × genes with donor, cell type, state and total in ``obs``.
    key
        Column of ``obs`` with the state; each state belongs to one cell type.
    cell_types
        Names of the cell types.
    """

    def __init__(self, cells: AnnData, key: str, cell_types: list[str]) -> None:
        state, names = pd.factorize(cells.obs[key].astype(str), sort=True)
        donor, donors = pd.factorize(cells.obs[keys.DONOR].astype(str))
        self._sums, (donor, self._state), member, _ = sum_pairs(cells.X, donor, state)
        self._donors, self._totals = donors[donor], np.bincount(member, cells.obs["total"])
        self._genes = cells.var_names
        self._types = np.empty(len(names), dtype=int)
        self._types[state] = pd.Index(cell_types).get_indexer(cells.obs[keys.CELL_TYPE].astype(str))

    def profiles(self, genes: pd.Index, without: Collection[str] = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return counts (states × genes), totals and cell-type codes of the states, without held-out donors."""
        kept = np.flatnonzero(~pd.Index(self._donors).isin(without))
        state, n_states = self._state[kept], len(self._types)
        sums = self._sums[kept][:, self._genes.get_indexer(genes)]
        totals = np.bincount(state, self._totals[kept], minlength=n_states)
        return to_dense(membership(state, n_states) @ sums), totals, self._types
