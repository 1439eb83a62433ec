"""BSEQ-sc: CIBERSORT on profiles that keep the cells' RNA content and weigh donors alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from scdeconv import _keys as keys

from ._cibersort import CIBERSORT

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._matrix import Matrix

TINY = np.finfo(float).tiny


def average_profiles(
    cells: Matrix, totals: np.ndarray, types: np.ndarray, donors: np.ndarray, n_types: int
) -> np.ndarray:
    """Average cells within each type of each donor, then donors.

    Within a type of a donor, each cell counts alike, whatever its depth: the mean of the cells' shares is multiplied by the
    mean of their totals.

    Parameters
    ----------
    cells
        Cells × genes, counts.
    totals
        Counts of each cell over all genes.
    types, donors
        Numbers of each cell's type and donor, from 0.
    n_types
        Types there are; those without cells have a profile of zeros.

    Returns
    -------
    Counts per cell, cell types × genes.
    """
    n_donors = int(donors.max(initial=-1)) + 1
    group = donors * n_types + types
    n_cells = np.bincount(group, minlength=n_donors * n_types)
    mean_total = np.bincount(group, totals, minlength=n_donors * n_types) / np.maximum(n_cells, 1)
    weights = (mean_total / np.maximum(n_cells, 1))[group] / np.maximum(totals, TINY)
    rows = sp.csr_matrix((weights, (group, np.arange(len(group)))), shape=(len(n_cells), len(group)))
    means = np.asarray((rows @ sp.csr_matrix(cells)).todense()).reshape(n_donors, n_types, -1)
    n_having = (n_cells.reshape(n_donors, n_types) > 0).sum(axis=0)
    return means.sum(axis=0) / np.maximum(n_having, 1)[:, None]


class BSEQsc(CIBERSORT):
    """CIBERSORT on a basis of marker genes from single cells (Baron et al. 2016, Cell Systems 3:346).

    The basis is the mean over donors of each type's mean over the donor's cells, in counts per cell, so that types with
    more RNA have larger profiles and the fractions are shares of cells. The user's own markers are used where
    ``mdata["bulk"].var["selected"]`` marks them. Needs cells, no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with cells. The selected genes are used, all where none are selected.
    permutations, absolute, quantile_normalise, n_jobs, seed
        As for :class:`CIBERSORT`. The original runs CIBERSORT with quantile normalisation unless told otherwise.

    Notes
    -----
    The original scales each cell to its share of counts times the mean total of its type in its donor before it
    averages; this gives the same numbers. Its tests of differences between groups of samples (csSAM, edgeR) are not part
    of it here.
    """

    method = "bseqsc"
    fraction_kind = "cell"
    modalities = (keys.BULK, keys.PROFILES, keys.CELLS)

    def _fit(self, without: Collection[str]) -> None:
        cells = self._require_data()[keys.CELLS]
        cells = cells[~cells.obs[keys.DONOR].isin(without)]
        types = cells.obs[keys.CELL_TYPE].cat.set_categories(self.cell_types_).cat.codes.to_numpy(dtype=int)
        donors = cells.obs[keys.DONOR].factorize()[0]
        totals = cells.obs["total"].to_numpy(dtype=float)
        basis = average_profiles(cells[:, self.genes_].X, totals, types, donors, len(self.cell_types_))
        self.signature_ = basis / max(basis.mean(), TINY)
        self.summary_ = (
            f"{len(self.cell_types_)} profiles of {donors.max(initial=-1) + 1} donors, {len(self.genes_)} genes"
        )
