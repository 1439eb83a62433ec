"""Robust linear regression: least squares in which genes that fit badly count for little."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._least_squares import normal_equations, solve_least_squares
from ._signature_model import SignatureModel

if TYPE_CHECKING:
    from mudata import MuData

# residuals beyond so many standard deviations lose weight: 95 % efficiency for normal errors (Huber 1964)
TUNING = 1.345
# median absolute deviation over standard deviation of a normal distribution, to the digits of MASS
MAD_PER_SD = 0.6745
TOLERANCE = 1e-4
MAX_ITERATIONS = 20
# scale of the residuals over the largest expression, below which they are rounding
ROUNDING = 1e-13


def solve_huber(
    signature: np.ndarray, bulk: np.ndarray, *, max_iterations: int = MAX_ITERATIONS, tolerance: float = TOLERANCE
) -> np.ndarray:
    """Fit every sample by Huber's M-estimator, by iteratively reweighted least squares.

    A gene whose residual r exceeds ``c = 1.345 s`` has the weight ``c / |r|``, others 1; s is the median of all ``|r|``
    over 0.6745, found anew in each round. The start is least squares; a sample is done when its residuals change by a
    share of no more than ``tolerance``, in the Euclidean norm.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    max_iterations, tolerance
        As ``maxit`` and ``acc`` of ``MASS::rlm``.

    Returns
    -------
    Coefficients, samples × cell types, of either sign.
    """
    solution = solve_least_squares(*normal_equations(signature, bulk, np.ones_like(bulk)))
    residual = bulk - solution @ signature
    active = np.arange(len(bulk))
    for _ in range(max_iterations):
        scale = np.median(np.abs(residual), axis=1, keepdims=True) / MAD_PER_SD
        # what fits to the last digit is left as it is
        noisy = (scale > ROUNDING * np.abs(bulk[active]).max(axis=1, keepdims=True, initial=0))[:, 0]
        active, residual, scale = active[noisy], residual[noisy], scale[noisy]
        if not len(active):
            break
        weights = TUNING * scale / np.maximum(np.abs(residual), TUNING * scale)
        solution[active] = solve_least_squares(*normal_equations(signature, bulk[active], weights))
        new = bulk[active] - solution[active] @ signature
        moving = np.linalg.norm(new - residual, axis=1) > tolerance * np.linalg.norm(residual, axis=1)
        active, residual = active[moving], new[moving]
    return solution


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

    method = "robust_regression"

    def __init__(self, mdata: MuData | None = None, *, max_iterations: int = MAX_ITERATIONS) -> None:
        if max_iterations < 1:
            msg = f"Expected max_iterations of at least 1, found {max_iterations}."
            raise ValueError(msg)
        super().__init__(mdata)
        self.parameters_ = {"max_iterations": max_iterations}

    def _solve(self, signature: np.ndarray, bulk: np.ndarray) -> np.ndarray:
        return np.maximum(solve_huber(signature, bulk, max_iterations=self.parameters_["max_iterations"]), 0)
