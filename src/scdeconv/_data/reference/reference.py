"""Cell-type profiles with optional held-out donors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata, subset, values_of
from scdeconv._data.matrix import to_dense
from scdeconv._data.modalities import check_reference

from .averages import average_cells
from .sums import indicator, membership, sum_shares

if TYPE_CHECKING:
    from collections.abc import Collection

    from anndata import AnnData
    from mudata import MuData


class Reference:
    """Cell-type profiles in counts per cell, with optional held-out donors.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`.
    genes
        Genes to keep.
    """

    def __init__(self, mdata: MuData, genes: pd.Index) -> None:
        check_reference(mdata, "this step")
        given = mdata[keys.PROFILES]
        self.cell_types = list(given.obs[keys.CELL_TYPE])
        self._cells = mdata[keys.CELLS] if keys.CELLS in mdata.mod else None
        self._genes = genes
        self._sums: AnnData | None = None
        self._share_sums: AnnData | None = None
        self._averages: tuple[np.ndarray, np.ndarray, pd.Index] | None = None
        if keys.SUMS in mdata.mod:
            self._sums = subset(mdata[keys.SUMS], genes=genes)
            return
        size = given.obs[keys.CELL_SIZE].to_numpy(dtype=float)
        # user profiles may be in any unit: scale them to counts per cell by their cell sizes
        totals = given.obs["total"].to_numpy(dtype=float) if "total" in given.obs else size
        self._given = values_of(given, genes=genes) * (size / np.where(totals > 0, totals, 1))[:, None], size

    @property
    def has_donors(self) -> bool:
        """Whether the cells of each donor are known, and not profiles only."""
        return self._sums is not None

    def profiles(self, without: Collection[str] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Return mean counts per cell (types × genes) and mean total per cell (types) without held-out donors."""
        return self._given if self._sums is None else mean_profiles(self._without(without), self.cell_types)

    def mean_shares(self, without: Collection[str] = ()) -> np.ndarray:
        """Return the mean relative expression of the cells, types × genes, without held-out donors.

        The first call reads the cells. Without cells, profiles are divided by the total per cell.
        """
        if self._cells is None:
            profiles, size = self.profiles(without)
            return profiles / np.maximum(size, np.finfo(float).tiny)[:, None]
        if self._share_sums is None:
            self._share_sums = sum_shares(self._cells, self._genes)
        return mean_profiles(_without(self._share_sums, without), self.cell_types)[0]

    def mean_cells_by_donor(self, without: Collection[str] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Return mean counts per cell and cell numbers of each type and donor, without held-out donors.

        The first call reads the cells. See :func:`average_cells`.

        Returns
        -------
        means
            Counts per cell, donors × cell types × genes; zeros without cells.
        n_cells
            Number of cells, donors × cell types.

        Raises
        ------
        ValueError
            If the reference has profiles only.
        """
        if self._cells is None:
            msg = "Expected cells, found profiles only. Pass cells to pp.pair."
            raise ValueError(msg)
        if self._averages is None:
            self._averages = average_cells(self._cells, self.cell_types, self._genes)
        means, n_cells, donors = self._averages
        kept = ~donors.isin(without)
        return means[kept], n_cells[kept]

    def by_donor(self, without: Collection[str] = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return summed counts (donors × types × genes), summed totals and cell numbers (donors × types)."""
        sums = self._without(without)
        donor, donors = pd.factorize(sums.obs[keys.DONOR])
        kind = pd.Index(self.cell_types).get_indexer(sums.obs[keys.CELL_TYPE])
        shape = len(donors), len(self.cell_types)
        counts, totals, n_cells = np.zeros((*shape, sums.n_vars)), np.zeros(shape), np.zeros(shape)
        counts[donor, kind], totals[donor, kind] = to_dense(sums.X), sums.obs["total"]
        n_cells[donor, kind] = sums.obs["n_cells"]
        return counts, totals, n_cells

    def _without(self, donors: Collection[str]) -> AnnData:
        if self._sums is None:
            msg = "Expected summed cells of each donor, found profiles only. Pass cells to pp.pair."
            raise ValueError(msg)
        return _without(self._sums, donors)


def _without(sums: AnnData, donors: Collection[str]) -> AnnData:
    """Return the summed cells of all donors that are not held out."""
    return subset(sums, ~sums.obs[keys.DONOR].isin(donors).to_numpy()) if len(donors) else sums


def mean_profiles(sums: AnnData, cell_types: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean counts per cell (types × genes) and mean total per cell (types); both zero without cells."""
    rows = indicator(sums.obs[keys.CELL_TYPE], cell_types)
    n_cells = np.maximum(rows @ sums.obs["n_cells"].to_numpy(dtype=float), 1)
    return to_dense(rows @ sums.X) / n_cells[:, None], rows @ sums.obs["total"].to_numpy(dtype=float) / n_cells


def make_profiles(sums: AnnData, cell_types: list[str]) -> AnnData:
    """Return mean counts per cell, cell types × genes, with the mean total per cell in ``obs["cell_size_umi"]``."""
    means, size = mean_profiles(sums, cell_types)
    n_cells = sums.obs.groupby(keys.CELL_TYPE, observed=False)["n_cells"].sum()
    obs = pd.DataFrame(
        {
            keys.CELL_TYPE: list(cell_types),
            keys.CELL_SIZE: size,
            "n_cells": n_cells.reindex(cell_types, fill_value=0).to_numpy(dtype=int),
        },
        index=pd.Index(cell_types, dtype=str),
    )
    return make_adata(means.astype(np.float32), obs=obs, var=sums.var[[]].copy())


def make_pseudobulk(sums: AnnData) -> AnnData:
    """Return the summed counts of each donor's cells, donors × genes."""
    donor, donors = pd.factorize(sums.obs[keys.DONOR].astype(str), sort=True)
    rows = membership(donor, len(donors))
    n_cells = (rows @ sums.obs["n_cells"].to_numpy(dtype=float)).astype(int)
    obs = pd.DataFrame({keys.DONOR: list(donors), "n_cells": n_cells}, index=pd.Index(donors, dtype=str))
    return make_adata(to_dense(rows @ sums.X).astype(np.float32), obs=obs, var=sums.var[[]].copy())
