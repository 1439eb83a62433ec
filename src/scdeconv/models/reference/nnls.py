"""Non-negative least squares on the cell types' profiles."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.least_squares import solve_nonnegative
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel


def solve_nnls(signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
    """Solve ``min ||signature.T x - b||, x >= 0`` for each bulk sample.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.

    Returns
    -------
    Weights, samples × cell types, not normalised.
    """
    # the triangle of a QR decomposition stands for the signature; squaring it only once keeps the digits
    orthogonal, triangle = np.linalg.qr(signature.T)
    return solve_nonnegative(triangle.T @ triangle, bulk @ orthogonal @ triangle)


class NNLS(SignatureModel):
    """Non-negative least squares on marker genes in absolute units.

    The profiles are mean counts per cell, so a weight is a number of cells and the fractions are cell shares: the RNA
    content of each type is in its profile. Needs no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.NNLS.setup_mudata(mdata)
    >>> model = scdeconv.models.NNLS(mdata)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="nnls",
        family="reference",
        needs=("profiles",),
        summary="non-negative least squares",
        reference="Lawson & Hanson 1974",
    )

    def _solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        return solve_nnls(signature, bulk)
