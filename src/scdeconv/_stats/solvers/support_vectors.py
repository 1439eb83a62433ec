"""CIBERSORT: nu-support-vector regression of standardised bulk on standardised profiles, and goodness of fit."""

from __future__ import annotations

import numpy as np
from sklearn.svm import NuSVR

from scdeconv._stats.compositions import to_fractions
from scdeconv._stats.rounding import deviations_from_mean

# nu: maximum share of genes outside of the tube and minimum share of support vectors, values of CIBERSORT
NUS = (0.25, 0.5, 0.75)


def standardise(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Return z-scores with the standard deviation for n - 1; constant values become 0."""
    deviations = deviations_from_mean(values, axis)
    scale = np.where(deviations.any(axis=axis, keepdims=True), values.std(axis=axis, ddof=1, keepdims=True), 1)
    return deviations / scale


def goodness_of_fit(signature: np.ndarray, bulk: np.ndarray, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return correlation and error between bulk and the profiles mixed with the fractions.

    Parameters
    ----------
    signature
        Cell types × genes, standardised.
    bulk
        Samples × genes, standardised.
    fractions
        Samples × cell types, rows sum to 1.

    Returns
    -------
    correlation
        Pearson correlation, length samples; 0 if bulk or the fit is constant.
    rmse
        Root mean squared error, length samples. As in the original, both exclude the intercept of the regression.
    """
    fitted = fractions @ signature
    products = standardise(fitted, axis=1) * standardise(bulk, axis=1)
    return products.sum(axis=1) / (bulk.shape[1] - 1), np.sqrt(((fitted - bulk) ** 2).mean(axis=1))


def solve_nu_svr(signature: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """Regress one sample on the profiles by linear nu-support-vector regression.

    For nu = 0.25, 0.5 and 0.75, minimises ``|w|^2 / 2 + C (nu G e + sum_g max(|r_g| - e, 0))`` over the weights w, an
    intercept and the half-width e of the tube. r are the residuals and C = 1 (Schölkopf et al. 2000, with the scale of
    C in libsvm). Negative weights are set to 0. The solution with the lowest root mean squared error of its fractions
    is returned.

    Parameters
    ----------
    signature
        Cell types × G genes, standardised.
    sample
        Length genes, standardised.

    Returns
    -------
    Weights, length cell types, not normalised.
    """
    best, lowest = np.zeros(len(signature)), np.inf
    for nu in NUS:
        machine = NuSVR(kernel="linear", C=1.0, nu=nu, tol=1e-3)
        # without it scikit-learn draws a seed, which nu-SVR does not use, from NumPy's global state
        machine.random_state = 0
        machine.fit(signature.T, sample)
        weights = np.maximum(machine.coef_, 0)
        _, rmse = goodness_of_fit(signature, sample[None], to_fractions(weights))
        if weights.any() and rmse[0] < lowest:
            best, lowest = weights[0], rmse[0]
    return best


def draw_null_mixtures(bulk: np.ndarray, n_mixtures: int, rng: np.random.Generator) -> np.ndarray:
    """Return null mixtures (mixtures × genes): random values from all samples, drawn without replacement."""
    return np.stack([rng.choice(bulk.ravel(), bulk.shape[1], replace=False) for _ in range(n_mixtures)])


def p_values(correlation: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Return empirical p-values: 1 - rank / n of the nearest of n null correlations."""
    nearest = np.abs(np.sort(null) - correlation[:, None]).argmin(axis=1)
    return 1 - (nearest + 1) / len(null)
