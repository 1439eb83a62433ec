"""Least squares for many samples at once: of either sign, non-negative, or robust."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

# exchanges of all infeasible variables that may fail to help, before they are exchanged one by one (Kim & Park 2011)
PATIENCE = 3
TOLERANCE = 1e-10
# relative ridge: identical profiles share a weight instead of making the system singular
RIDGE = 1e-12
# residuals beyond so many standard deviations lose weight: 95 % efficiency for normal errors (Huber 1964)
TUNING = 1.345
# median absolute deviation over standard deviation of a normal distribution, to the digits of MASS
MAD_PER_SD = 0.6745
# relative change of the residuals that ends Huber's iteration, and the number of iterations, as in MASS::rlm
HUBER_TOLERANCE = 1e-4
MAX_ITERATIONS = 20
# scale of the residuals over the largest expression, below which they are rounding
ROUNDING = 1e-13


def solve_nonnegative(gram: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Minimise ``x' gram x / 2 - moment' x`` over ``x >= 0`` for each sample, by block principal pivoting.

    All samples move together: each step solves one small system per sample that is not optimal yet and exchanges its
    infeasible variables between "zero" and "free" (Kim & Park 2011, SIAM J. Sci. Comput. 33:3261).

    Parameters
    ----------
    gram
        ``A' A``, cell types × cell types, or one such matrix per sample.
    moment
        ``A' b``, samples × cell types.

    Returns
    -------
    Solutions, samples × cell types.
    """
    n_samples, n_types = moment.shape
    # unit diagonal, so that the tolerance means the same for every type; a type without a profile gets no weight
    scale = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    gram = np.broadcast_to(gram * inverse[..., :, None] * inverse[..., None, :], (n_samples, n_types, n_types))
    moment = moment * inverse
    size = np.maximum(np.abs(moment).max(axis=1, keepdims=True), np.finfo(float).tiny)
    solution, free = np.zeros_like(moment), np.zeros(moment.shape, dtype=bool)
    left, patience = np.full(n_samples, PATIENCE), np.full(n_samples, n_types + 1)
    active = np.arange(n_samples)
    for _ in range(20 * n_types):
        x = _solve_free(gram[active], moment[active], free[active])
        slope = np.einsum("nij,nj->ni", gram[active], x) - moment[active]
        wrong = np.where(free[active], x, slope) < -TOLERANCE * size[active]
        solution[active] = x
        keep = wrong.any(axis=1)
        active, wrong = active[keep], wrong[keep]
        if not len(active):
            break
        count = wrong.sum(axis=1)
        better = count < patience[active]
        patience[active] = np.where(better, count, patience[active])
        left[active] = np.where(better, PATIENCE, left[active] - 1)
        last = n_types - 1 - wrong[:, ::-1].argmax(axis=1)
        alone = np.arange(n_types) == last[:, None]
        free[active] ^= np.where((better | (left[active] >= 0))[:, None], wrong, alone)
    for row in active:
        # pivoting may cycle where profiles are nearly identical: fall back to scipy
        lower = np.linalg.cholesky(gram[row] + TOLERANCE * np.eye(n_types))
        solution[row] = nnls(lower.T, np.linalg.solve(lower, moment[row]))[0]
    # nothing is wrong with what is not a number, so it would end as zero
    solution[np.isnan(moment).any(axis=1)] = np.nan
    return np.maximum(solution, 0) * inverse


def _solve_free(gram: np.ndarray, moment: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Solve for the free variables of each sample, the others zero."""
    identity = np.eye(gram.shape[-1])
    system = np.where(free[:, :, None] & free[:, None, :], gram, 0) + identity * np.where(free, RIDGE, 1)[:, None, :]
    return np.linalg.solve(system, np.where(free, moment, 0)[..., None])[..., 0]


def solve_least_squares(gram: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Solve ``gram x = moment`` for each sample; types with identical profiles share a weight, empty ones get none.

    Parameters
    ----------
    gram, moment
        From :func:`normal_equations`.

    Returns
    -------
    Solutions, samples × cell types, of either sign.
    """
    scale = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    unit = gram * inverse[:, :, None] * inverse[:, None, :] + np.where(scale > 0, RIDGE, 1.0)[:, None] * np.eye(
        gram.shape[1]
    )
    return np.linalg.solve(unit, (moment * inverse)[..., None])[..., 0] * inverse


def weighted_gram(signature: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ``signature @ diag(weights) @ signature.T`` of every sample by one product of matrices.

    Parameters
    ----------
    signature
        Cell types × genes.
    weights
        Samples × genes.

    Returns
    -------
    Samples × cell types × cell types.
    """
    rows, columns = np.triu_indices(len(signature))
    gram = np.empty((len(weights), len(signature), len(signature)))
    gram[:, rows, columns] = gram[:, columns, rows] = weights @ (signature[rows] * signature[columns]).T
    return gram


def normal_equations(signature: np.ndarray, bulk: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix and the right-hand side of weighted least squares, for each sample.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk, weights
        Samples × genes.

    Returns
    -------
    Samples × cell types × cell types, and samples × cell types.
    """
    return weighted_gram(signature, weights), (weights * bulk) @ signature.T


def solve_weighted(signature: np.ndarray, bulk: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Minimise ``sum(weights * (bulk - x @ signature)^2)`` over ``x >= 0`` for each sample.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk
        Samples × genes.
    weights
        Samples × genes, not negative.

    Returns
    -------
    Solutions, samples × cell types.
    """
    return solve_nonnegative(*normal_equations(signature, bulk, weights))


def solve_huber(
    signature: np.ndarray, bulk: np.ndarray, *, max_iterations: int = MAX_ITERATIONS, tolerance: float = HUBER_TOLERANCE
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
