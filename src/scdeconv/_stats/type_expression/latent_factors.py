"""Latent factors of bulk noise: scores of each sample on variation that many genes share."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.least_squares import HUBER_K, MAD_PER_SD

# eigenvalues must exceed the Marchenko-Pastur edge of pure noise by this factor, as genes differ in variance (set by hand)
EDGE_MARGIN = 1.2
# maximum number of factors relative to the residual degrees of freedom and to the genes (set by hand)
MAX_SHARE = 1 / 3
# steps of the robust regression of the scores (set by hand)
N_HUBER_STEPS = 3


def count_factors(residuals: np.ndarray, df: int) -> int:
    """Return the number of factors whose eigenvalue is above that of independent noise.

    Parameters
    ----------
    residuals
        Samples × genes with mean square 1, from a regression with ``df`` residual degrees of freedom.
    df
        Residual degrees of freedom.

    Notes
    -----
    The noise level is the median of the eigenvalues. Its largest eigenvalue over G genes is at most about
    ``(1 + sqrt(df / G))²`` times the mean (Marchenko & Pastur 1967).
    """
    n_genes = residuals.shape[1]
    rank = min(df, n_genes)
    eigenvalues = np.linalg.eigvalsh(residuals @ residuals.T / n_genes)[::-1][:rank]
    edge = EDGE_MARGIN * (1 + np.sqrt(df / n_genes)) ** 2 * np.median(eigenvalues)
    return min(int((eigenvalues > edge).sum()), int(rank * MAX_SHARE))


def factor_scores(residuals: np.ndarray, deviations: np.ndarray, n_factors: int) -> np.ndarray:
    """Return the scores of the samples on latent factors, samples × factors.

    The loadings of the genes come from residuals of the full model, which contain no effects of the tested variables.
    The scores come from deviations of the model without these effects: for each sample, a robust regression over all
    genes on the loadings. A score can therefore correlate with the tested variable. Effects on single genes are outliers
    of the regression and do not enter the scores (Wang et al. 2017, Ann. Statist. 45:1863).

    Parameters
    ----------
    residuals
        Residuals of the full model, samples × genes, with mean square 1 for each gene.
    deviations
        Residuals of the model without the tested effects in the same unit, samples × genes.
    n_factors
        Number of factors.
    """
    if not n_factors:
        return np.empty((len(residuals), 0))
    _, vectors = np.linalg.eigh(residuals @ residuals.T)
    loadings = vectors[:, -n_factors:].T @ residuals
    # least squares: loadings can be collinear, if there are more factors than varying genes
    scores = np.linalg.lstsq(loadings.T, deviations.T, rcond=None)[0].T
    for _ in range(N_HUBER_STEPS):
        left = np.abs(deviations - scores @ loadings)
        scale = np.median(left, axis=1, keepdims=True) / MAD_PER_SD
        # at a scale of 0, most genes are fitted exactly
        weights = np.where(left <= HUBER_K * scale, 1, HUBER_K * scale / np.maximum(left, np.finfo(float).tiny))
        for sample, weight in enumerate(weights):
            weighted = loadings * weight
            scores[sample] = np.linalg.lstsq(weighted @ loadings.T, weighted @ deviations[sample], rcond=None)[0]
    return scores
