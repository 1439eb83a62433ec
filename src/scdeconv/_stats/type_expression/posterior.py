"""Expression of each cell type in single bulk samples: posterior mean under a Gaussian model of log expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from scdeconv._stats.expression import to_shares
from scdeconv._stats.rounding import deviations_from_mean
from scdeconv._stats.shrinkage import correlation_shrinkage, shrink_variances

# SD of a factor that all genes of a sample share in log expression, as in the calibration (set by hand)
OFFSET_SD = 0.5
# lower limit of the independent variance of log expression: an SD of 3 % (set by hand)
MIN_VARIANCE = 1e-3
# least expected count of a gene in the cells of one type and donor, for variances between donors (set by hand)
MIN_EXPECTED_COUNT = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class DonorVariation:
    """Variation between donors in log expression, in bulk and in the cells of the same donors.

    Parameters
    ----------
    bulk, cells
        Deviations of bulk and of the summed cells from the expectation given the composition, centred and scaled,
        donors × genes. ``bulk.T @ bulk`` is the covariance of bulk between genes, and ``cells.T @ bulk`` that of the cells
        with bulk.
    variance
        Variance of bulk that is independent between genes, length genes.
    own_variance
        Variance of the log expression of a gene in one cell type between donors, beyond what all types share.
    repeatability
        Share of the variance of bulk between donors that the cells of the donors have, too, 0 to 1.
    """

    bulk: np.ndarray
    cells: np.ndarray
    variance: np.ndarray
    own_variance: float
    repeatability: float

    def deviations(self, residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the posterior mean of the shared deviation of the cell types, and the independent residual.

        Parameters
        ----------
        residuals
            Log expression of bulk minus its expectation, samples × genes.

        Notes
        -----
        With the covariance :math:`S = B'B + o^2 11' + D` of the residuals r, the shared deviation has the posterior mean
        :math:`C'B S^{-1} r`, and the independent residual is :math:`D S^{-1} r`. The inverse follows from the Woodbury
        identity.
        """
        factors = np.vstack([self.bulk, np.full(self.bulk.shape[1], OFFSET_SD)])
        weighted = factors / self.variance
        scores = np.linalg.solve(np.eye(len(factors)) + weighted @ factors.T, weighted @ residuals.T)
        independent = residuals - scores.T @ factors
        # rows of B S^-1 r are the scores, by the push-through identity
        return scores[:-1].T @ self.cells, independent


def fit_donor_variation(bulk: np.ndarray, cells: np.ndarray, own_variance: float) -> DonorVariation:
    """Return the variation between donors.

    Parameters
    ----------
    bulk, cells
        Log expression of the paired bulk and of the summed cells of its donor, minus the expectation given the
        composition, samples × genes.
    own_variance
        From :func:`own_variance_of_types`.
    """
    bulk, cells = deviations_from_mean(bulk), deviations_from_mean(cells)
    intensity, _ = correlation_shrinkage(bulk)
    scale = np.sqrt((1 - intensity) / (len(bulk) - 1))
    variance = np.maximum(intensity * shrink_variances(bulk), MIN_VARIANCE)
    repeatability = float(np.clip((bulk * cells).sum() / max((bulk**2).sum(), np.finfo(float).tiny), 0, 1))
    return DonorVariation(
        bulk=scale * bulk,
        cells=scale * cells,
        variance=variance,
        own_variance=own_variance,
        repeatability=repeatability,
    )


def own_variance_of_types(counts: np.ndarray, totals: np.ndarray, n_cells: np.ndarray, profiles: np.ndarray) -> float:
    """Return the variance of relative expression between donors that is specific to one cell type.

    The variance of the counts C of a gene in the cells of one type and donor with expectation E is
    ``E + E² (variance between donors + dispersion / cells)``. The part that all types share is the covariance between
    two types of a donor, which has no counting noise.

    Parameters
    ----------
    counts
        Summed counts, donors × cell types × genes.
    totals, n_cells
        Sum over all genes, and number of cells, donors × cell types.
    profiles
        Mean expression, cell types × genes.
    """
    expected = totals[:, :, None] * to_shares(profiles)
    scale = counts.sum(axis=2, keepdims=True) / np.maximum(expected.sum(axis=2, keepdims=True), np.finfo(float).tiny)
    expected = expected * scale
    expected[expected < MIN_EXPECTED_COUNT] = 0
    difference = np.where(expected > 0, counts - expected, 0)
    squares = (expected**2).sum(axis=2)
    used = squares > 0
    if not used.any():
        return 0.0
    excess = (difference**2 - expected).sum(axis=2)[used] / squares[used]
    weights = np.sqrt((expected > 0).sum(axis=2)[used])
    columns = np.column_stack([np.ones(used.sum()), 1 / n_cells[used]])
    between = nnls(weights[:, None] * columns, weights * np.maximum(excess, 0))[0][0]
    products = np.einsum("dkg,dlg->kl", difference, difference)
    squared = np.einsum("dkg,dlg->kl", expected, expected)
    pairs = np.triu_indices(len(products), 1)
    shared = products[pairs].sum() / max(squared[pairs].sum(), np.finfo(float).tiny)
    return max(float(between - max(shared, 0)), 0.0)


def type_deviations(
    variation: DonorVariation, shared: np.ndarray, independent: np.ndarray, part: np.ndarray, squares: np.ndarray
) -> np.ndarray:
    """Return the posterior mean of the log deviation of one cell type from its profile, samples × genes.

    Parameters
    ----------
    variation
        Variation between donors.
    shared, independent
        From :meth:`DonorVariation.deviations`.
    part
        Share of the type in the expected expression of each gene, samples × genes.
    squares
        Sum of the squared shares over all types, samples × genes.
    """
    own = variation.own_variance
    # the variance that bulk and cells share contains that of single types, in proportion to their squared shares
    common = np.maximum(variation.repeatability * variation.variance - own * squares, 0)
    return shared + independent * (common + own * part) / np.maximum(variation.variance, own * squares)
