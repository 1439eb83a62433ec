"""Non-negative least squares on cell-type profiles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scdeconv._stats.least_squares import solve_nonnegative
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel, SignatureState


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
    # QR instead of normal equations, for numerical accuracy
    orthogonal, triangle = np.linalg.qr(signature.T)
    return solve_nonnegative(triangle.T @ triangle, bulk @ orthogonal @ triangle)


@dataclass(frozen=True, kw_only=True)
class NNLSState(SignatureState):
    """Signature, solved by :func:`solve_nnls`."""

    def solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        return solve_nnls(signature, bulk)


class NNLS(SignatureModel):
    """Non-negative least squares on profiles in counts per cell.

    The profiles include the RNA content of each type, so the fractions are cell fractions. Needs no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected.

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
    state_type = NNLSState
