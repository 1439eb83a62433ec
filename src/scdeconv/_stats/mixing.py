"""Mixtures of training donors: weights, noise of single samples, and relevance of genes for the composition."""

from __future__ import annotations

import numpy as np

# relevance of genes that are not correlated with any cell type (set by hand)
LEAST_RELEVANCE = 0.01
# singular values below this share of the largest are rounding errors
RANK_TOLERANCE = 1e-8


def concentrations(donors: np.ndarray, total: float) -> np.ndarray:
    """Return the parameters of the Dirichlet distribution of the rows' weights.

    All donors have the same parameter, which the samples of a donor share. The sum of the weights of a donor then has the
    same distribution for all donors. Mixtures have at most about ``1 + total`` donors: the expected sum of squared
    weights is ``(1 + total / n) / (1 + total)`` for n donors.

    Parameters
    ----------
    donors
        Donor of each row.
    total
        Sum of the parameters.
    """
    _, codes, sizes = np.unique(donors, return_inverse=True, return_counts=True)
    shares: np.ndarray = total / (len(sizes) * sizes[codes])
    return shares


def mix_rows(
    linear: np.ndarray,
    fractions: np.ndarray,
    donors: np.ndarray,
    total: float,
    n_mixtures: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return linear expression and fractions of mixtures of donors.

    Parameters
    ----------
    linear
        Linear expression, rows × genes, in units of RNA per cell.
    fractions
        Rows × cell types.
    donors, total
        As for :func:`concentrations`.
    n_mixtures
        Number of mixtures.
    rng
        Random number generator.
    """
    weights = rng.dirichlet(concentrations(donors, total), n_mixtures)
    # all gamma variables of tiny concentrations may be 0
    weights = weights[np.isfinite(weights).all(axis=1)]
    return weights @ linear, weights @ fractions


def residual_weights(fractions: np.ndarray) -> np.ndarray:
    """Return weights of the samples whose combinations have no linear effect of the composition.

    With independent standard normal numbers as coefficients, the combinations of log expression have the covariance of
    the residuals of a linear regression of log expression on the fractions.

    Parameters
    ----------
    fractions
        Samples × cell types.

    Returns
    -------
    Components × samples; zero if there are no residual degrees of freedom.
    """
    n_samples = len(fractions)
    basis = _column_space(np.column_stack([np.ones(n_samples), fractions]))
    df = n_samples - basis.shape[1]
    if df < 1:
        return np.zeros((n_samples, n_samples))
    weights: np.ndarray = (np.eye(n_samples) - basis @ basis.T) / np.sqrt(df)
    return weights


def _column_space(table: np.ndarray) -> np.ndarray:
    vectors, values, _ = np.linalg.svd(table, full_matrices=False)
    return vectors[:, values > RANK_TOLERANCE * values[0]]


def gene_relevance(x: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Return the relevance of each gene, mean square 1.

    It is proportional to the largest squared correlation of the gene with the fraction of a cell type, adjusted for
    chance: ``1 - (1 - r²) (n - 1) / (n - 2)``.

    Parameters
    ----------
    x
        Log expression, samples × genes.
    fractions
        Samples × cell types.

    Returns
    -------
    Length genes.
    """
    n_samples = len(x)
    deviations, composition = x - x.mean(axis=0), fractions - fractions.mean(axis=0)
    tiny = np.finfo(float).tiny
    norms = np.sqrt(np.outer((deviations**2).sum(axis=0), (composition**2).sum(axis=0)))
    squared = ((deviations.T @ composition / np.maximum(norms, tiny)) ** 2).max(axis=1)
    adjusted = 1 - (1 - squared) * (n_samples - 1) / max(n_samples - 2, 1)
    relevance: np.ndarray = np.maximum(adjusted, LEAST_RELEVANCE)
    return relevance / np.sqrt((relevance**2).mean())
