"""Robust linear regression: Huber's M-estimator by iteratively reweighted least squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from scdeconv._data.checks import checked
from scdeconv._stats.least_squares import MAX_ITERATIONS, solve_huber
from scdeconv.models._record import Method
from scdeconv.models._signature_model import SignatureModel, SignatureState

if TYPE_CHECKING:
    from mudata import MuData


@dataclass(frozen=True, kw_only=True)
class RobustRegressionState(SignatureState):
    """Signature, solved by Huber's M-estimator."""

    max_iterations: int

    def solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        return np.maximum(solve_huber(signature, bulk, max_iterations=self.max_iterations), 0)


class RobustRegression(SignatureModel):
    """Robust linear regression on the profiles: Huber's M-estimator; negative coefficients are set to zero.

    Genes with large residuals get a low weight, separately for each sample. The profiles are mean counts per cell, so
    the fractions are cell fractions. Needs no pairs.

    Parameters
    ----------
    mdata
        From :func:`scdeconv.pp.pair`. The selected genes are used, or all genes if none were selected.
    max_iterations
        Maximum number of reweighting iterations. 20 is the default of ``MASS::rlm``; benchmarks use 100 and more.

    Notes
    -----
    Algorithm and constants are those of ``MASS::rlm(signature, sample)`` (Venables & Ripley 2002; Huber 1964). There is
    no intercept, as in granulator; Avila Cobos et al. (2020) fit an intercept and drop it. Samples without residuals
    are not reweighted. ``rlm`` refuses a singular signature; here types with identical profiles get equal fractions. A
    sample without expression gets equal fractions.

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
    state_type = RobustRegressionState

    @checked()
    def __init__(self, mdata: MuData | None = None, *, max_iterations: int = MAX_ITERATIONS) -> None:
        super().__init__(mdata)
        self.parameters_ = {"max_iterations": max_iterations}

    def _settings(self) -> dict[str, object]:
        return dict(self.parameters_)
