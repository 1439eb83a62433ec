"""Non-negative least squares after the calibration that the pairs teach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from scdeconv._stats.expression import LEVEL, fill_missing
from scdeconv.models._base import LinearModel
from scdeconv.models._record import Method
from scdeconv.pp import fit_calibration

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_ITERATIONS = 30
TOLERANCE = 1e-4


def solve_generalised_nnls(
    signature: np.ndarray, shares: np.ndarray, variance: np.ndarray, factors: np.ndarray, depth: float
) -> np.ndarray:
    """Solve non-negative least squares in the metric of the noise, which grows with the fitted values.

    A gene fitted as ``m`` departs from it by ``(m + e)`` times noise with covariance ``factors.T @ factors +
    diag(variance)``, ``e`` the level below which log expression turns linear, and by ``m / depth`` (variance) from
    counting. The solution and its metric are found in turn, as a running mean.

    Parameters
    ----------
    signature
        Cell types × genes.
    shares
        Of one sample, length genes, sums to 1.
    variance
        Of log expression between donors, independent between genes.
    factors
        What moves log expression of several genes, factors × genes.
    depth
        Counts of the sample over these genes; infinite where it is not counts.

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
        # the inverse of diagonal plus low rank, by Woodbury's identity
        moved = factors * scale
        scaled = moved / diagonal
        inner = np.linalg.solve(np.eye(len(moved)) + scaled @ moved.T, scaled)
        both = np.vstack([signature, shares])
        metric = (both / diagonal) @ signature.T - (both @ scaled.T) @ (inner @ signature.T)
        # with metric[:-1] = L L', the problem is that of L' x against the solution of L t = metric[-1]
        normal = (metric[:-1] + metric[:-1].T) / 2
        lower = np.linalg.cholesky(normal + 1e-10 * np.trace(normal) * np.eye(len(normal)))
        new = (weights + nnls(lower.T, solve_triangular(lower, metric[-1], lower=True))[0]) / 2
        done = np.abs(new - weights).sum() < TOLERANCE * weights.sum()
        weights = new
        if done:
            break
    return weights


class CalibratedNNLS(LinearModel):
    """Non-negative least squares on profiles shifted to how bulk sees them, genes weighted by how repeatable they are.

    The platform shift of each gene, its noise between donors (also what it shares with other genes) and the cell sizes
    come from :func:`scdeconv.pp.calibrate`, fitted to the model's genes.

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

    def _fit(self, without: Collection[str]) -> None:
        mdata = self._require_data()
        calibration = fit_calibration(mdata, self._reference, self.genes_, without=without, batch_key=self._batch_key)
        signature = calibration.profiles * np.exp(calibration.platform_shift)
        self.signature_ = signature / max(signature.sum(axis=1).mean(), np.finfo(float).tiny)
        self.variance_, self.factors_ = calibration.noise_variance(), calibration.factors()
        self.counts_ = len(calibration.depths) > 0
        self.summary_ = f"{calibration.n_donors} donors, {len(self.cell_types_)} profiles, {len(self.genes_)} genes"

    def _fractions(self, expression: np.ndarray) -> np.ndarray:
        depths = np.nansum(expression, axis=1) if self.counts_ else np.full(len(expression), np.inf)
        mean = self.signature_.sum(axis=0)
        shares = fill_missing(expression, mean / max(mean.sum(), np.finfo(float).tiny))
        return np.stack(
            [
                solve_generalised_nnls(self.signature_, sample, self.variance_, self.factors_, max(depth, 1.0))
                for sample, depth in zip(shares, depths, strict=True)
            ]
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        state = {"signature": self.signature_, "variance": self.variance_, "factors": self.factors_}
        return state | {"counts": np.array(self.counts_)}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.signature_, self.variance_, self.factors_ = (arrays[name] for name in ("signature", "variance", "factors"))
        self.counts_ = bool(arrays["counts"])
