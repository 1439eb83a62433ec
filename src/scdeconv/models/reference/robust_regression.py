"""Robust linear regression: least squares in which genes that fit badly count for little."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scdeconv._stats.least_squares import MAX_ITERATIONS, solve_huber
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel

if TYPE_CHECKING:
    from mudata import MuData


class RobustRegression(SignatureModel):
    """Robust linear regression on the profiles: Huber's M-estimator; negative coefficients become zero.

    Genes that no mixture of the profiles explains lose their weight sample by sample. The profiles are mean counts per
    cell, so the fractions are shares of cells. Needs no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, all where none are selected.
    max_iterations
        Rounds of reweighting; 20 is the default of ``MASS::rlm``, benchmarks set 100 and more.

    Notes
    -----
    The algorithm and constants of ``MASS::rlm(signature, sample)`` (Venables & Ripley 2002; Huber 1964), without an
    intercept as in granulator; Avila Cobos et al. (2020) fit one and drop it. Without noise and for a sample that is
    zero there is nothing to reweight. Where ``rlm`` refuses a singular signature, types with identical profiles share
    their weight. A sample without any expression gets equal fractions.

    Examples
    --------
    >>> import scdeconv
    >>> mdata = scdeconv.pp.pair(
    ...     *scdeconv.datasets.paired_cohort(n_donors=6, n_genes=300, cells_per_donor=(50, 100))
    ... )  # doctest: +ELLIPSIS
    paired 6 donors ...
    >>> scdeconv.models.RobustRegression.setup_mudata(mdata)
    >>> model = scdeconv.models.RobustRegression(mdata, max_iterations=50)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="robust_regression",
        family="reference",
        needs=("profiles",),
        summary="Huber's robust regression on the profiles",
        reference="Huber 1964",
    )

    def __init__(self, mdata: MuData | None = None, *, max_iterations: int = MAX_ITERATIONS) -> None:
        if max_iterations < 1:
            msg = f"Expected max_iterations of at least 1, found {max_iterations}."
            raise ValueError(msg)
        super().__init__(mdata)
        self.parameters_ = {"max_iterations": max_iterations}

    def _solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        return np.maximum(solve_huber(signature, bulk, max_iterations=self.parameters_["max_iterations"]), 0)
