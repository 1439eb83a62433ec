"""What single cells say about their cell types and donors: fractions, profiles, pseudobulk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata, subset, values_of
from scdeconv._data.chunks import product
from scdeconv._data.matrix import to_dense
from scdeconv._data.validation import Problems, examine, report_expression

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from anndata import AnnData
    from mudata import MuData

    from scdeconv._data.matrix import Matrix


def membership(groups: np.ndarray, n_groups: int) -> sp.csr_matrix:
    """Return the matrix groups × members that is 1 where the member is of the group; those of group -1 are of none."""
    members = np.flatnonzero(groups >= 0)
    return sp.csr_matrix((np.ones(len(members)), (groups[members], members)), shape=(n_groups, len(groups)))


def indicator(labels: pd.Series, categories: list[str]) -> sp.csr_matrix:
    """Return the matrix categories × cells that is 1 where the cell has the label."""
    return membership(pd.Categorical(labels, categories=categories).codes, len(categories))


def sum_pairs(
    matrix: Matrix,
    donor: np.ndarray,
    group: np.ndarray,
    inspect: Callable[[Matrix], Any] | None = None,
    weights: np.ndarray | None = None,
) -> tuple[sp.csr_matrix, tuple[np.ndarray, np.ndarray], np.ndarray, list[Any]]:
    """Add up the cells of each group of each donor, in one pass.

    Parameters
    ----------
    matrix
        Cells × genes.
    donor, group
        Numbers of each cell's donor and group, from 0.
    inspect
        As for :func:`scdeconv._data.chunks.product`.
    weights
        Factor of each cell; 1 by default.

    Returns
    -------
    Sums, pairs that have cells × genes; donor and group of each pair; the pair of each cell; what ``inspect`` returned.
    """
    n_groups = int(group.max()) + 1
    pairs, pair = np.unique(donor * n_groups + group, return_inverse=True)
    rows = membership(pair, len(pairs))
    if weights is not None:
        rows = rows @ sp.diags(weights)
    sums, learned = product(rows, matrix, sparse=True, inspect=inspect)
    return sums, np.divmod(pairs, n_groups), pair, learned


def sum_cells(cells: AnnData, *, logged: bool = False) -> AnnData:
    """Add up the cells of each type of each donor, in one pass over the cells that looks at every value.

    Profiles, pseudobulk and everything that leaves donors out are made of these sums.

    Parameters
    ----------
    cells
        With ``obs["donor"]`` and ``obs["cell_type"]``, categorical. Gets ``obs["total"]``, the sum over all genes.
    logged
        Whether the cells are marked as log-transformed.

    Returns
    -------
    AnnData, pairs of a donor and a type that have cells × genes: ``X`` the sums (CSR, float64), ``obs["donor"]``,
    ``obs["cell_type"]``, ``obs["n_cells"]`` and ``obs["total"]``.

    Raises
    ------
    ValueError
        Where values of a lazy matrix are not expression on a linear scale.
    """
    donor, donors = pd.factorize(cells.obs[keys.DONOR].astype(str), sort=True)
    cell_types, kind = cells.obs[keys.CELL_TYPE].cat.categories, cells.obs[keys.CELL_TYPE].cat.codes.to_numpy(dtype=int)
    sums, (donor, kind), pair, examined = sum_pairs(cells.X, donor, kind, examine)
    problems = Problems("The inputs cannot be paired")
    report_expression(problems, examined, cells, "cells", logged=logged)
    problems.raise_if_any()
    cells.obs["total"] = np.concatenate([part.totals for part in examined])
    obs = pd.DataFrame(
        {
            keys.DONOR: donors[donor],
            keys.CELL_TYPE: pd.Categorical.from_codes(kind, cell_types),
            "n_cells": np.bincount(pair),
            "total": np.bincount(pair, cells.obs["total"]),
        },
        index=[f"{donors[d]}: {cell_types[k]}" for d, k in zip(donor, kind, strict=True)],
    )
    return make_adata(sums, obs=obs, var=cells.var[[]].copy())


def sum_shares(cells: AnnData, genes: pd.Index) -> AnnData:
    """Add up each cell's shares of its counts, for the cells of each type of each donor, in one pass over the cells.

    Parameters
    ----------
    cells
        The modality ``sc`` of :func:`scdeconv.pp.pair`. The shares are of ``obs["total"]``.
    genes
        Genes to keep.

    Returns
    -------
    AnnData with the rows of :func:`sum_cells`: ``X`` the sums of shares, ``obs["total"]`` their sums over all genes.
    """
    donor, donors = pd.factorize(cells.obs[keys.DONOR].astype(str), sort=True)
    cell_types, kind = cells.obs[keys.CELL_TYPE].cat.categories, cells.obs[keys.CELL_TYPE].cat.codes.to_numpy(dtype=int)
    weights = 1 / np.maximum(cells.obs["total"].to_numpy(dtype=float), np.finfo(float).tiny)
    sums, (donor, kind), pair, _ = sum_pairs(cells.X, donor, kind, weights=weights)
    n_cells = np.bincount(pair)
    obs = pd.DataFrame(
        {
            keys.DONOR: donors[donor],
            keys.CELL_TYPE: pd.Categorical.from_codes(kind, cell_types),
            "n_cells": n_cells,
            "total": n_cells.astype(float),
        }
    )
    kept = sums[:, cells.var_names.get_indexer(genes)]
    return make_adata(kept, obs=obs.set_index(obs.index.astype(str)), var=pd.DataFrame(index=genes))


def count_cells(sums: AnnData, donors: list[str], cell_types: list[str]) -> pd.DataFrame:
    """Return the number of cells of every type in every donor (donors × cell types, int)."""
    counts = sums.obs.astype({keys.DONOR: str, keys.CELL_TYPE: str})
    counts = counts.pivot(index=keys.DONOR, columns=keys.CELL_TYPE, values="n_cells")
    counts = counts.reindex(index=donors, columns=cell_types).fillna(0)
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
        self._cells = mdata[keys.CELLS] if keys.CELLS in mdata.mod else None
        self._genes = genes
        self._sums: AnnData | None = None
        self._share_sums: AnnData | None = None
        if keys.SUMS in mdata.mod:
            self._sums = subset(mdata[keys.SUMS], genes=genes)
            return
        size = given.obs[keys.CELL_SIZE].to_numpy(dtype=float)
        # profiles that were given may be in any unit; their cell sizes put them into counts per cell
        totals = given.obs["total"].to_numpy(dtype=float) if "total" in given.obs else size
        self._given = values_of(given, genes=genes) * (size / np.where(totals > 0, totals, 1))[:, None], size

    def profiles(self, without: Collection[str] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Return mean counts per cell (types × genes) and mean total per cell (types), some donors left out."""
        return self._given if self._sums is None else mean_profiles(self._without(without), self.cell_types)

    def mean_shares(self, without: Collection[str] = ()) -> np.ndarray:
        """Return the mean over cells of each cell's shares of its counts (types × genes), some donors left out.

        The cells are read once, at the first call. Without cells, the profiles are divided by the total per cell.
        """
        if self._cells is None:
            profiles, size = self.profiles(without)
            return profiles / np.maximum(size, np.finfo(float).tiny)[:, None]
        if self._share_sums is None:
            self._share_sums = sum_shares(self._cells, self._genes)
        return mean_profiles(_without(self._share_sums, without), self.cell_types)[0]

    def by_donor(self, without: Collection[str] = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return sums of counts (donors × types × genes), of totals and numbers of cells (donors × types)."""
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
            msg = "Expected sums of the cells of each donor, found profiles only. Give cells to pp.pair."
            raise ValueError(msg)
        return _without(self._sums, donors)


def _without(sums: AnnData, donors: Collection[str]) -> AnnData:
    """Return the sums of the other donors' cells."""
    return subset(sums, ~sums.obs[keys.DONOR].isin(donors).to_numpy()) if len(donors) else sums


def mean_profiles(sums: AnnData, cell_types: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean counts per cell (types × genes) and mean total per cell (types); zeros for types without cells."""
    rows = indicator(sums.obs[keys.CELL_TYPE], cell_types)
    n_cells = np.maximum(rows @ sums.obs["n_cells"].to_numpy(dtype=float), 1)
    return to_dense(rows @ sums.X) / n_cells[:, None], rows @ sums.obs["total"].to_numpy(dtype=float) / n_cells


def make_profiles(sums: AnnData, cell_types: list[str]) -> AnnData:
    """Return mean expression per cell (cell types × genes), with ``obs["cell_size_umi"]``, the mean total per cell."""
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
    """Return the summed expression of each donor's cells (donors × genes)."""
    donor, donors = pd.factorize(sums.obs[keys.DONOR].astype(str), sort=True)
    rows = membership(donor, len(donors))
    n_cells = (rows @ sums.obs["n_cells"].to_numpy(dtype=float)).astype(int)
    obs = pd.DataFrame({keys.DONOR: list(donors), "n_cells": n_cells}, index=pd.Index(donors, dtype=str))
    return make_adata(to_dense(rows @ sums.X).astype(np.float32), obs=obs, var=sums.var[[]].copy())
