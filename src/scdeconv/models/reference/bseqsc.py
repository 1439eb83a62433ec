"""BSEQ-sc: CIBERSORT on profiles that keep the cells' RNA content and weigh donors alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp

from scdeconv._data import keys
from scdeconv._data.chunks import product
from scdeconv.models._record import Method
from scdeconv.models.reference.cibersort import CIBERSORT

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._data.matrix import Matrix

TINY = np.finfo(float).tiny


def average_cells(
    cells: Matrix, totals: np.ndarray, types: np.ndarray, donors: np.ndarray, n_types: int, genes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average the cells of each type of each donor.

    Each cell counts alike, whatever its depth: the mean of the cells' shares is multiplied by the mean of their totals.

    Parameters
    ----------
    cells
        Cells × genes, counts.
    totals
        Counts of each cell over all genes.
    types, donors
        Numbers of each cell's type and donor, from 0.
    n_types
        Types there are.
    genes
        Columns to keep.

    Returns
    -------
    Counts per cell, donors × cell types × genes, zeros where there are no cells; and the numbers of cells, donors × cell
    types.
    """
    n_donors = int(donors.max(initial=-1)) + 1
    group = donors * n_types + types
    n_cells = np.bincount(group, minlength=n_donors * n_types)
    mean_total = np.bincount(group, totals, minlength=n_donors * n_types) / np.maximum(n_cells, 1)
    weights = (mean_total / np.maximum(n_cells, 1))[group] / np.maximum(totals, TINY)
    rows = sp.csr_matrix((weights, (group, np.arange(len(group)))), shape=(len(n_cells), len(group)))
    means = product(rows, cells, sparse=True)[0][:, genes].toarray()
    return means.reshape(n_donors, n_types, -1), n_cells.reshape(n_donors, n_types)


def average_donors(means: np.ndarray, n_cells: np.ndarray) -> np.ndarray:
    """Average donors × cell types × genes over the donors that have cells of the type; zeros where none has."""
    return means.sum(axis=0) / np.maximum((n_cells > 0).sum(axis=0), 1)[:, None]


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

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.BSEQsc.setup_mudata(mdata)
    >>> model = scdeconv.models.BSEQsc(mdata)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="bseqsc",
        family="reference",
        needs=("cells",),
        summary="CIBERSORT on the mean of donors' marker expression",
        reference="Baron et al. 2016",
        stochastic=True,
    )
    modalities = (keys.BULK, keys.PROFILES, keys.CELLS)

    def train(self, *, held_out: bool = True) -> None:
        """Average the cells of every donor; ``held_out`` as for the other linear methods."""
        mdata = self._require_data()
        self.setup_mudata(mdata)
        cells, cell_types = mdata[keys.CELLS], mdata[keys.PROFILES].obs[keys.CELL_TYPE]
        types = pd.Index(cell_types).get_indexer(cells.obs[keys.CELL_TYPE].astype(str))
        donors, self._donors = pd.factorize(cells.obs[keys.DONOR].astype(str))
        totals, genes = cells.obs["total"].to_numpy(dtype=float), cells.var_names.get_indexer(self._input_genes())
        self._means, self._n_cells = average_cells(cells.X, totals, types, donors, len(cell_types), genes)
        super().train(held_out=held_out)
        del self._means, self._n_cells, self._donors

    def _fit(self, without: Collection[str]) -> None:
        kept = ~self._donors.isin(without)
        basis = average_donors(self._means[kept], self._n_cells[kept])
        self.signature_ = basis / max(basis.mean(), TINY)
        self.summary_ = f"{len(self.cell_types_)} profiles of {kept.sum()} donors, {len(self.genes_)} genes"
