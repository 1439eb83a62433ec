"""Markers of a signature by fold change between replicates of cells, as CIBERSORTx chooses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.stats import false_discovery_control, ttest_ind

from scdeconv._data.chunks import product
from scdeconv._data.reference import indicator
from scdeconv._stats.rounding import deviations_from_mean

if TYPE_CHECKING:
    import pandas as pd

    from scdeconv._data.matrix import Matrix


def draw_replicates(cell_type: np.ndarray, replicates: int, sampling: float, seed: int) -> sp.csr_matrix:
    """Return a matrix replicates × cells that is 1 for the cells of a replicate: a share of a type's, each once.

    Parameters
    ----------
    cell_type
        Of each cell, as codes from 0, each of at least 2 cells.
    replicates
        Of each type; those of the first type come first.
    sampling
        Share of the cells, rounded up; never all, or the replicates would be the same.
    seed
        Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    columns, sizes = [], []
    for kind in range(cell_type.max() + 1):
        members = np.flatnonzero(cell_type == kind)
        size = min(int(np.ceil(sampling * len(members))), len(members) - 1)
        columns.append(rng.permuted(np.tile(members, (replicates, 1)), axis=1)[:, :size].ravel())
        sizes += [size] * replicates
    ends = np.r_[0, np.cumsum(sizes)]
    return sp.csr_matrix((np.ones(ends[-1]), np.concatenate(columns), ends), (len(sizes), len(cell_type)))


def fold_change_scores(
    counts: Matrix,
    totals: np.ndarray,
    cell_type: pd.Series,
    *,
    replicates: int,
    sampling: float,
    fraction: float,
    q_value: float,
    seed: int,
) -> np.ndarray:
    """Return the log2 fold change of the genes that a type expresses more than the others do on average.

    Parameters
    ----------
    counts
        Cells × genes.
    totals
        Counts of each cell over all genes.
    cell_type
        Of each cell, categorical.
    replicates, sampling, seed
        As for :func:`draw_replicates`.
    fraction
        Least share of a type's cells that express a marker of the type.
    q_value
        False discovery rate of the Welch tests of a type (on log2 of CPM + 1).

    Returns
    -------
    Cell types × genes, -inf where a gene is no marker of the type.
    """
    codes, names = cell_type.cat.codes.to_numpy(), list(cell_type.cat.categories)
    rows = draw_replicates(codes, replicates, sampling, seed)
    cpm = product(rows, counts, description="adding up replicates")[0] / (rows @ totals)[:, None] * 1e6
    expressed = np.ones((len(names), cpm.shape[1]))
    # the cells are read again only where it matters
    if fraction > 0:
        of_type = indicator(cell_type, names)
        expressed = product(of_type, counts > 0, description="counting cells")[0] / np.asarray(of_type.sum(axis=1))
    log, kind_of_row = np.log2(cpm + 1), np.repeat(np.arange(len(names)), replicates)
    # a gene that no replicate has, or that does not vary, says nothing
    tested = deviations_from_mean(log).any(axis=0)
    scores = np.full((len(names), cpm.shape[1]), -np.inf)
    for kind, score in enumerate(scores):
        mine = kind_of_row == kind
        change = np.log2((cpm[mine].mean(axis=0) + 1) / (cpm[~mine].mean(axis=0) + 1))
        p = ttest_ind(log[mine][:, tested], log[~mine][:, tested], equal_var=False).pvalue
        q = np.ones_like(change)
        q[tested] = false_discovery_control(np.nan_to_num(p, nan=1))
        found = (q < q_value) & (change > 0) & (expressed[kind] >= fraction)
        score[found] = change[found]
    return scores
