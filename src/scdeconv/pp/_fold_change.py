"""Fold changes of marker genes between pseudo-replicates, as in CIBERSORTx."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data.chunks import product
from scdeconv._data.reference import indicator
from scdeconv._stats.draws import draw_replicates
from scdeconv._stats.markers import fold_changes

if TYPE_CHECKING:
    import pandas as pd

    from scdeconv._data.matrix import Matrix


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
    """Return the log2 fold changes of marker genes of each cell type against the mean of the other types.

    Parameters
    ----------
    counts
        Cells × genes.
    totals
        Total counts of each cell over all genes.
    cell_type
        Cell type of each cell, categorical.
    replicates, sampling, seed
        As for :func:`scdeconv._stats.draws.draw_replicates`.
    fraction
        Minimum share of a type's cells that express a marker of the type.
    q_value
        False discovery rate of the Welch tests of a type, on log2(CPM + 1).

    Returns
    -------
    Log2 fold changes, cell types × genes; -inf for genes that are no markers of the type.
    """
    codes, names = cell_type.cat.codes.to_numpy(), list(cell_type.cat.categories)
    rows = draw_replicates(codes, replicates, sampling, seed)
    cpm = product(rows, counts, description="adding up replicates")[0] / (rows @ totals)[:, None] * 1e6
    expressed = np.ones((len(names), cpm.shape[1]))
    # a second pass over the cells is needed only for a positive fraction
    if fraction > 0:
        of_type = indicator(cell_type, names)
        expressed = product(of_type, counts > 0, description="counting cells")[0] / np.asarray(of_type.sum(axis=1))
    kinds = np.repeat(np.arange(len(names)), replicates)
    return fold_changes(cpm, kinds, expressed, fraction=fraction, q_value=q_value)
