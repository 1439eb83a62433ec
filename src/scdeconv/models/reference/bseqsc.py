"""BSEQ-sc: CIBERSORT on profiles in counts per cell, averaged over donors with equal weight."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from scdeconv.models._record import Method
from scdeconv.models.reference.cibersort import CIBERSORT

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._data.paired_data import PairedData
    from scdeconv.models._state import State

TINY = np.finfo(float).tiny


def average_donors(means: np.ndarray, n_cells: np.ndarray) -> np.ndarray:
    """Return the mean over donors with cells of the type, cell types × genes; 0 if no donor has cells of the type."""
    return means.sum(axis=0) / np.maximum((n_cells > 0).sum(axis=0), 1)[:, None]


class BSEQsc(CIBERSORT):
    """CIBERSORT on a basis matrix of marker genes from single cells (Baron et al. 2016, Cell Systems 3:346).

    The basis is the mean over donors of the mean counts per cell of each type within the donor. Types with more RNA
    have larger profiles, so the fractions are cell fractions. To use your own marker genes, mark them in
    ``mdata["bulk"].var["selected"]``. Needs cells and no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`, with cells. The selected genes are used, or all genes if none were selected.
    permutations, absolute, quantile_normalise, n_jobs, seed
        As for :class:`CIBERSORT`. The original uses quantile normalisation by default.

    Notes
    -----
    The original scales the shares of each cell by the mean total counts of its type in its donor before averaging. This
    gives the same values. Its tests of differences between groups of samples (csSAM, edgeR) are not implemented.

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

    def fit(self, data: PairedData, without: Collection[str] = ()) -> State:
        """Average the cells of each type within donors, then over donors.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, of the class ``state_type``.
        """
        _, n_cells = data.reference.mean_cells_by_donor(without)
        summary = f"{len(data.cell_types)} profiles of {len(n_cells)} donors, {len(data.genes)} genes"
        return replace(super().fit(data, without), summary=summary)

    def signature(self, data: PairedData, without: Collection[str] = ()) -> np.ndarray:
        """Return the basis matrix.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        Basis with mean 1, cell types × genes.
        """
        basis = average_donors(*data.reference.mean_cells_by_donor(without))
        return basis / max(basis.mean(), TINY)
