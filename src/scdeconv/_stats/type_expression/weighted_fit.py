"""Weighted least squares of many genes, each with its own weights and with columns in proportion to its expression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# number of values of the designs of a block of genes (set by hand, 16 MB)
VALUES_PER_BLOCK = 2_000_000
NO_PAIRS = (np.empty(0, dtype=int), np.empty(0, dtype=int))


@dataclass(frozen=True, eq=False)
class WeightedFit:
    """Weighted least squares of many genes.

    Coefficients are columns × genes, residuals samples × genes, and covariances pairs of columns × genes, in units of the
    variance of the gene.
    """

    coefficients: np.ndarray
    covariances: np.ndarray
    residuals: np.ndarray
    df: int

    @property
    def variance(self) -> np.ndarray:
        """Residual variance of each gene in units of the expected variance."""
        return np.asarray((self.residuals**2).sum(axis=0) / self.df)


def fit_weighted(
    expression: np.ndarray,
    columns: np.ndarray,
    relative: np.ndarray,
    fitted: np.ndarray,
    sd: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray] = NO_PAIRS,
) -> WeightedFit:
    """Fit each gene by weighted least squares.

    Parameters
    ----------
    expression
        Samples × genes.
    columns
        Design of all genes, samples × columns.
    relative
        Columns in proportion to the expression of the gene, samples × further columns.
    fitted
        Expected expression, samples × genes, which scales ``relative``.
    sd
        Standard deviation of each value up to a factor per gene, samples × genes.
    pairs
        Numbers of the columns of each covariance to return. All would need columns² values for each gene.
    """
    n_samples, n_genes = expression.shape
    n_columns = columns.shape[1] + relative.shape[1]
    coefficients, residuals = np.empty((n_columns, n_genes)), np.empty((n_samples, n_genes))
    covariances = np.empty((len(pairs[0]), n_genes))
    size = max(1, VALUES_PER_BLOCK // (n_samples * n_columns))
    for start in range(0, n_genes, size):
        block = slice(start, start + size)
        scale = 1 / sd[:, block].T[:, :, None]
        own = fitted[:, block].T[:, :, None] * relative
        design = np.concatenate([np.broadcast_to(columns, (len(own), *columns.shape)), own], axis=2) * scale
        target = expression[:, block].T[:, :, None] * scale
        orthogonal, triangle = np.linalg.qr(design)
        inverse = np.linalg.inv(triangle)
        projected = orthogonal.transpose(0, 2, 1) @ target
        coefficients[:, block] = (inverse @ projected)[:, :, 0].T
        residuals[:, block] = (target - orthogonal @ projected)[:, :, 0].T
        covariances[:, block] = np.einsum("gpc,gpc->pg", inverse[:, pairs[0]], inverse[:, pairs[1]])
    return WeightedFit(coefficients, covariances, residuals, n_samples - n_columns)
