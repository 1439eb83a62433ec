"""Summed counts and number of cells of each donor and cell type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.annotated import make_adata
from scdeconv._data.checks import Problems, examine, report_expression
from scdeconv._data.chunks import product

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from scdeconv._data.matrix import Matrix


def membership(groups: np.ndarray, n_groups: int) -> sp.csr_matrix:
    """Return the indicator matrix groups × members; members with group -1 belong to no group."""
    members = np.flatnonzero(groups >= 0)
    return sp.csr_matrix((np.ones(len(members)), (groups[members], members)), shape=(n_groups, len(groups)))


def indicator(labels: pd.Series, categories: list[str]) -> sp.csr_matrix:
    """Return the indicator matrix categories × cells of the labels."""
    return membership(pd.Categorical(labels, categories=categories).codes, len(categories))


def sum_pairs(
    matrix: Matrix,
    donor: np.ndarray,
    group: np.ndarray,
    inspect: Callable[[Matrix], Any] | None = None,
    weights: np.ndarray | None = None,
) -> tuple[sp.csr_matrix, tuple[np.ndarray, np.ndarray], np.ndarray, list[Any]]:
    """Sum the cells of each group and donor in one pass.

    Parameters
    ----------
    matrix
        Cells × genes.
    donor, group
        Codes of each cell's donor and group, from 0.
    inspect
        As for :func:`scdeconv._data.chunks.product`.
    weights
        Weight of each cell. Default: 1.

    Returns
    -------
    sums
        Sums, non-empty (donor, group) pairs × genes.
    codes
        Donor code and group code of each pair.
    pair
        Pair of each cell.
    inspected
        Return values of ``inspect``.
    """
    n_groups = int(group.max()) + 1
    pairs, pair = np.unique(donor * n_groups + group, return_inverse=True)
    rows = membership(pair, len(pairs))
    if weights is not None:
        rows = rows @ sp.diags(weights)
    sums, learned = product(rows, matrix, sparse=True, inspect=inspect)
    return sums, np.divmod(pairs, n_groups), pair, learned


def sum_cells(cells: AnnData, *, logged: bool = False, keep_totals: bool = False) -> AnnData:
    """Sum the cells of each cell type and donor and check all values, in one pass over the cells.

    Profiles, pseudobulk and references without held-out donors are computed from these sums.

    Parameters
    ----------
    cells
        Cells with categorical ``obs["donor"]`` and ``obs["cell_type"]``.
    logged
        Whether the cells are marked as log-transformed.
    keep_totals
        Keep ``obs["total"]``, which includes genes that ``cells`` lack (:func:`scdeconv.pp.combine_references`).

    Returns
    -------
    AnnData, non-empty (donor, cell type) pairs × genes: ``X`` (sums, CSR, float64), ``obs["donor"]``,
    ``obs["cell_type"]``, ``obs["n_cells"]`` and ``obs["total"]``.

    Writes
    ------
    ``cells.obs["total"]``: the sum over all genes, unless ``keep_totals``.

    Raises
    ------
    ValueError
        If values of a lazy matrix are not expression on a linear scale.
    """
    donor, donors = pd.factorize(cells.obs[keys.DONOR].astype(str), sort=True)
    cell_types, kind = cells.obs[keys.CELL_TYPE].cat.categories, cells.obs[keys.CELL_TYPE].cat.codes.to_numpy(dtype=int)
    sums, (donor, kind), pair, examined = sum_pairs(cells.X, donor, kind, examine)
    problems = Problems("The inputs cannot be paired")
    report_expression(problems, examined, cells, "cells", logged=logged)
    problems.raise_if_any()
    if not keep_totals:
        cells.obs["total"] = np.concatenate([part.summary.totals for part in examined])
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
    """Sum the relative expression of the cells of each cell type and donor in one pass over the cells.

    Parameters
    ----------
    cells
        Modality ``sc`` of :func:`scdeconv.pp.pair`. Counts are divided by ``obs["total"]``.
    genes
        Genes to keep.

    Returns
    -------
    AnnData with the rows of :func:`sum_cells`: ``X`` (sums of shares), ``obs["total"]`` (sums over all genes).
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
    """Return the number of cells, donors × cell types."""
    counts = sums.obs.astype({keys.DONOR: str, keys.CELL_TYPE: str})
    counts = counts.pivot(index=keys.DONOR, columns=keys.CELL_TYPE, values="n_cells")
    counts = counts.reindex(index=donors, columns=cell_types).fillna(0)
    return counts.rename_axis(index=None, columns=None).astype(int)


def expect_cells(
    cells: AnnData, probabilities: pd.DataFrame, donors: list[str], cell_types: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return mean and variance of the number of cells from cell-type probabilities, donors × cell types.

    Parameters
    ----------
    cells
        Cells with ``obs["donor"]``.
    probabilities
        Cells × cell types in the order of ``cells``; rows sum to 1. Cells are assumed independent.
    donors, cell_types
        Rows and columns of the result. Donors without cells have zeros.
    """
    donor = cells.obs[keys.DONOR].astype(str).to_numpy()
    tables = (table.groupby(donor).sum() for table in (probabilities, probabilities * (1 - probabilities)))
    expected, variance = (table.reindex(index=donors, columns=cell_types, fill_value=0.0) for table in tables)
    return expected, variance


def round_counts(expected: np.ndarray) -> np.ndarray:
    """Round rows of non-negative numbers with integer sums by the largest-remainder method, which keeps the sums."""
    counts = np.floor(expected).astype(int)
    missing = np.rint(expected.sum(axis=1)).astype(int) - counts.sum(axis=1)
    # stable sort: ties go to the first column
    order = np.argsort(counts - expected, axis=1, kind="stable")
    return counts + (np.argsort(order, axis=1) < missing[:, None])
