"""Correlated noise of genes as factors, at most a fixed number of them."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.shrinkage import correlation_shrinkage

# the solver's cost grows with their square; held-out errors are those of all factors (benchmarks/many_donors.py --caps)
MAX_FACTORS = 100
# of the random projection that finds the leading directions
SVD_SEED = 0


def factor_noise(deviations: np.ndarray, variance: np.ndarray, counting: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Describe deviations by factors that genes share and a variance of each gene alone.

    Parameters
    ----------
    deviations
        Rows × genes.
    variance
        Shrunk variance of each gene, length genes.
    counting
        Part of it that comes from counting, which a sample's depth determines, length genes.

    Returns
    -------
    Loadings, factors × genes, at most ``MAX_FACTORS``; independent variance, length genes.
    """
    intensity, _ = correlation_shrinkage(deviations)
    scale = np.sqrt((deviations**2).sum(axis=0) / (len(deviations) - 1))
    # samples as factors: their products are the residual correlations, brought to the shrunk variances
    loadings = deviations / np.where(scale > 0, scale, 1) * np.sqrt(variance * (1 - intensity) / (len(deviations) - 1))
    independent = np.maximum(intensity * variance - counting, 0)
    loadings, removed = limit_factors(loadings)
    return loadings, independent + removed


def limit_factors(loadings: np.ndarray, n_factors: int = MAX_FACTORS) -> tuple[np.ndarray, np.ndarray]:
    """Keep the leading directions of a covariance ``loadings.T @ loadings``.

    Parameters
    ----------
    loadings
        Factors × genes.
    n_factors
        Number of factors to keep. With no more than these the loadings are returned as they are.

    Returns
    -------
    Loadings, at most ``n_factors`` × genes; the variance of each gene that is left out, length genes.

    Notes
    -----
    Randomised SVD (Halko, Martinsson & Tropp 2011) with a fixed seed: time linear in the number of factors.
    """
    if len(loadings) <= n_factors:
        return loadings, np.zeros(loadings.shape[1])
    # scikit-learn takes long to import, and most cohorts are smaller
    from sklearn.utils.extmath import randomized_svd

    _, scales, directions = randomized_svd(loadings, n_factors, random_state=SVD_SEED)
    leading = scales[:, None] * directions
    removed = (loadings**2).sum(axis=0) - (leading**2).sum(axis=0)
    return leading, np.maximum(removed, 0)
