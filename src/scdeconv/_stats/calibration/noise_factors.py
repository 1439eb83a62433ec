"""Low-rank factors of noise that is correlated between genes."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.shrinkage import correlation_shrinkage

# solver cost is quadratic in this number; held-out errors equal those of all factors (benchmarks/many_donors.py --caps)
MAX_FACTORS = 100
# seed of the randomised SVD
SVD_SEED = 0


def factor_noise(deviations: np.ndarray, variance: np.ndarray, counting: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Decompose the covariance of deviations into shared factors and independent variances.

    Parameters
    ----------
    deviations
        Rows × genes.
    variance
        Shrunk variance, length genes.
    counting
        Part of the variance that is Poisson counting noise, length genes.

    Returns
    -------
    loadings
        Factors × genes, at most ``MAX_FACTORS`` factors.
    independent
        Independent variance, length genes.
    """
    intensity, _ = correlation_shrinkage(deviations)
    scale = np.sqrt((deviations**2).sum(axis=0) / (len(deviations) - 1))
    # one factor per row: the products give the shrunk correlations times the shrunk variances
    loadings = deviations / np.where(scale > 0, scale, 1) * np.sqrt(variance * (1 - intensity) / (len(deviations) - 1))
    independent = np.maximum(intensity * variance - counting, 0)
    loadings, removed = limit_factors(loadings)
    return loadings, independent + removed


def limit_factors(loadings: np.ndarray, n_factors: int = MAX_FACTORS) -> tuple[np.ndarray, np.ndarray]:
    """Return the leading factors of a covariance ``loadings.T @ loadings`` and the removed variance.

    Parameters
    ----------
    loadings
        Factors × genes.
    n_factors
        Maximum number of factors. Fewer factors are returned unchanged.

    Returns
    -------
    loadings
        At most ``n_factors`` × genes.
    removed
        Removed variance, length genes.

    Notes
    -----
    Randomised SVD (Halko, Martinsson & Tropp 2011) with a fixed seed: time linear in the number of factors.
    """
    if len(loadings) <= n_factors:
        return loadings, np.zeros(loadings.shape[1])
    # lazy import: scikit-learn is slow to load and small cohorts do not need it
    from sklearn.utils.extmath import randomized_svd

    _, scales, directions = randomized_svd(loadings, n_factors, random_state=SVD_SEED)
    leading = scales[:, None] * directions
    removed = (loadings**2).sum(axis=0) - (leading**2).sum(axis=0)
    return leading, np.maximum(removed, 0)
