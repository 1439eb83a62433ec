"""Non-negative least squares on profiles that are calibrated by the pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from scdeconv._stats.expression import LEVEL, fill_missing
from scdeconv.models._cross_fitted import CrossFittedModel
from scdeconv.models._record import Method
from scdeconv.models._state import State
from scdeconv.pp import fit_calibration

if TYPE_CHECKING:
    from collections.abc import Collection

    from scdeconv._data.paired_data import PairedData

MAX_ITERATIONS = 30
TOLERANCE = 1e-4


def solve_generalised_nnls(
    signature: np.ndarray, shares: np.ndarray, variance: np.ndarray, factors: np.ndarray, depth: float
) -> np.ndarray:
    """Solve generalised non-negative least squares with a noise covariance that depends on the fitted values.

    The covariance of a gene with fitted value ``m`` is ``(m + e)`` times noise with covariance ``factors.T @ factors +
    diag(variance)``, plus the counting variance ``m / depth``. ``e`` is the pseudo-share of log expression. The
    covariance and the solution are updated alternately; each new solution is averaged with the previous one.

    Parameters
    ----------
    signature
        Cell types × genes.
    shares
        Shares of the genes in one sample, length genes, sum 1.
    variance
        Gene-specific variance of log expression between donors, length genes.
    factors
        Noise factors of log expression that several genes share, factors × genes.
    depth
        Total counts of the sample over these genes; infinite if the bulk is not counts.

    Returns
    -------
    Weights, length cell types, not normalised.
    """
    if not signature.any():
        return np.zeros(len(signature))
    faint = 1 / (LEVEL * len(shares))
    weights = np.full(len(signature), 1 / signature.sum())
    for _ in range(MAX_ITERATIONS):
        fitted = weights @ signature
        scale = fitted + faint
        diagonal = variance * scale**2 + fitted / depth
        # Woodbury identity: inverse of a diagonal plus low-rank matrix
        moved = factors * scale
        scaled = moved / diagonal
        inner = np.linalg.solve(np.eye(len(moved)) + scaled @ moved.T, scaled @ signature.T)
        both = np.vstack([signature, shares])
        metric = (both / diagonal) @ signature.T - (both @ scaled.T) @ inner
        # Cholesky factor L of the normal matrix: minimise |L' x - t| with L t = metric[-1]
        normal = (metric[:-1] + metric[:-1].T) / 2
        lower = np.linalg.cholesky(normal + 1e-10 * np.trace(normal) * np.eye(len(normal)))
        new = (weights + nnls(lower.T, solve_triangular(lower, metric[-1], lower=True))[0]) / 2
        done = np.abs(new - weights).sum() < TOLERANCE * weights.sum()
        weights = new
        if done:
            break
    return weights


@dataclass(frozen=True, kw_only=True)
class CalibratedNNLSState(State):
    """Profiles on the scale of bulk, and the noise of bulk.

    Parameters
    ----------
    signature
        Profiles, cell types × genes.
    variance, factors
        As for :func:`solve_generalised_nnls`.
    counts
        Whether the bulk is counts; then the noise includes counting noise.
    """

    signature: np.ndarray
    variance: np.ndarray
    factors: np.ndarray
    counts: bool

    def predict(self, expression: np.ndarray) -> np.ndarray:
        """Return weights, samples × cell types."""
        depths = np.nansum(expression, axis=1) if self.counts else np.full(len(expression), np.inf)
        mean = self.signature.sum(axis=0)
        shares = fill_missing(expression, mean / max(mean.sum(), np.finfo(float).tiny))
        return np.stack(
            [
                solve_generalised_nnls(self.signature, sample, self.variance, self.factors, max(depth, 1.0))
                for sample, depth in zip(shares, depths, strict=True)
            ]
        )


class CalibratedNNLS(CrossFittedModel):
    """Non-negative least squares on profiles corrected for the platform effect, with genes weighted by their noise.

    :func:`scdeconv.pp.calibrate` estimates the platform effect of each gene, the noise between donors (with its
    correlation between genes) and the cell sizes, on the model's genes.

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
    >>> scdeconv.models.CalibratedNNLS.setup_mudata(mdata)
    >>> model = scdeconv.models.CalibratedNNLS(mdata)
    >>> model.train()
    >>> model.predict(mdata["bulk"]).shape
    (12, 7)
    """

    record = Method(
        key="calibrated_nnls",
        family="paired",
        needs=("profiles",),
        summary="NNLS on profiles calibrated by the pairs; plain reference without pairs",
        reference="this library; weights after MuSiC, DWLS",
        genes_per_type=150,
    )

    state_type = CalibratedNNLSState

    def fit(self, data: PairedData, without: Collection[str] = ()) -> CalibratedNNLSState:
        """Estimate calibrated profiles and noise from the pairs.

        Parameters
        ----------
        data, without
            As for :meth:`scdeconv.models.CrossFittedModel.fit`.

        Returns
        -------
        The learned state, a ``CalibratedNNLSState``.
        """
        calibration = fit_calibration(data, without, batch_key=data.batch_key)
        signature = calibration.profiles * np.exp(calibration.platform_shift)
        return CalibratedNNLSState(
            signature=signature / max(signature.sum(axis=1).mean(), np.finfo(float).tiny),
            variance=calibration.noise_variance(),
            factors=calibration.factors(),
            counts=len(calibration.depths) > 0,
            summary=f"{calibration.n_donors} donors, {len(signature)} profiles, {len(data.genes)} genes",
        )
