"""Unconstrained, non-negative and robust least squares for many samples at once."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

# full exchanges without improvement before variables are exchanged one by one (Kim & Park 2011)
MAX_FAILED_EXCHANGES = 3
TOLERANCE = 1e-10
# ridge relative to a unit diagonal: makes the system regular for identical profiles, which then share a weight
RELATIVE_RIDGE = 1e-12
# threshold of Huber's weights in SD: 95 % efficiency for normal errors (Huber 1964)
HUBER_K = 1.345
# ratio of median absolute deviation to SD of a normal distribution, rounded as in MASS
MAD_PER_SD = 0.6745
# relative change of the residuals at convergence and maximum number of iterations, defaults of MASS::rlm
HUBER_TOLERANCE = 1e-4
MAX_ITERATIONS = 20
# residual scale relative to the largest expression below which residuals are rounding errors
MIN_RELATIVE_SCALE = 1e-13


def solve_nonnegative(gram: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Minimise ``x' gram x / 2 - moment' x`` over ``x >= 0`` for each sample, by block principal pivoting.

    All samples are solved in parallel. Each iteration solves one small system per non-optimal sample and exchanges its
    infeasible variables between the zero set and the free set (Kim & Park 2011, SIAM J. Sci. Comput. 33:3261).

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
    # unit diagonal: one tolerance for all types; types with a zero profile get weight 0
    scale = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    gram = np.broadcast_to(gram * inverse[..., :, None] * inverse[..., None, :], (n_samples, n_types, n_types))
    moment = moment * inverse
    size = np.maximum(np.abs(moment).max(axis=1, keepdims=True), np.finfo(float).tiny)
    solution, free = np.zeros_like(moment), np.zeros(moment.shape, dtype=bool)
    left, patience = np.full(n_samples, MAX_FAILED_EXCHANGES), np.full(n_samples, n_types + 1)
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
        left[active] = np.where(better, MAX_FAILED_EXCHANGES, left[active] - 1)
        last = n_types - 1 - wrong[:, ::-1].argmax(axis=1)
        alone = np.arange(n_types) == last[:, None]
        free[active] ^= np.where((better | (left[active] >= 0))[:, None], wrong, alone)
    for row in active:
        # pivoting may cycle where profiles are nearly identical: fall back to scipy
        lower = np.linalg.cholesky(gram[row] + TOLERANCE * np.eye(n_types))
        solution[row] = nnls(lower.T, np.linalg.solve(lower, moment[row]))[0]
    # NaN rows must stay NaN: comparisons with NaN are False
    solution[np.isnan(moment).any(axis=1)] = np.nan
    return np.maximum(solution, 0) * inverse


def _solve_free(gram: np.ndarray, moment: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return the solution of each sample with all variables zero except the free ones."""
    identity = np.eye(gram.shape[-1])
    system = (
        np.where(free[:, :, None] & free[:, None, :], gram, 0)
        + identity * np.where(free, RELATIVE_RIDGE, 1)[:, None, :]
    )
    return np.linalg.solve(system, np.where(free, moment, 0)[..., None])[..., 0]


def solve_least_squares(gram: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Solve ``gram x = moment`` for each sample; identical profiles share a weight, zero profiles get weight 0.

    Parameters
    ----------
    gram, moment
        From :func:`normal_equations`.

    Returns
    -------
    Solutions, samples × cell types, positive or negative.
    """
    scale = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    unit = gram * inverse[:, :, None] * inverse[:, None, :] + np.where(scale > 0, RELATIVE_RIDGE, 1.0)[
        :, None
    ] * np.eye(gram.shape[1])
    return np.linalg.solve(unit, (moment * inverse)[..., None])[..., 0] * inverse


def weighted_gram(signature: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ``signature @ diag(weights) @ signature.T`` of every sample with one matrix product.

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
    """Return the matrix and right-hand side of the weighted normal equations of each sample.

    Parameters
    ----------
    signature
        Cell types × genes.
    bulk, weights
        Samples × genes.

    Returns
    -------
    gram
        Samples × cell types × cell types.
    moment
        Samples × cell types.
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
        Samples × genes, non-negative.

    Returns
    -------
    Solutions, samples × cell types.
    """
    return solve_nonnegative(*normal_equations(signature, bulk, weights))


def solve_huber(
    signature: np.ndarray, bulk: np.ndarray, *, max_iterations: int = MAX_ITERATIONS, tolerance: float = HUBER_TOLERANCE
) -> np.ndarray:
    """Fit every sample with Huber's M-estimator by iteratively reweighted least squares (IRLS).

    A gene with residual r has weight ``min(1, c / |r|)`` with ``c = 1.345 s``. The scale s is the median of ``|r|``
    divided by 0.6745 and is updated in each iteration. Least squares gives the start. A sample has converged if the
    relative change of its residuals is at most ``tolerance`` in the Euclidean norm.

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
    Coefficients, samples × cell types, positive or negative.
    """
    solution = solve_least_squares(*normal_equations(signature, bulk, np.ones_like(bulk)))
    residual = bulk - solution @ signature
    active = np.arange(len(bulk))
    for _ in range(max_iterations):
        scale = np.median(np.abs(residual), axis=1, keepdims=True) / MAD_PER_SD
        # exact fits have no meaningful scale
        noisy = (scale > MIN_RELATIVE_SCALE * np.abs(bulk[active]).max(axis=1, keepdims=True, initial=0))[:, 0]
        active, residual, scale = active[noisy], residual[noisy], scale[noisy]
        if not len(active):
            break
        weights = HUBER_K * scale / np.maximum(np.abs(residual), HUBER_K * scale)
        solution[active] = solve_least_squares(*normal_equations(signature, bulk[active], weights))
        new = bulk[active] - solution[active] @ signature
        moving = np.linalg.norm(new - residual, axis=1) > tolerance * np.linalg.norm(residual, axis=1)
        active, residual = active[moving], new[moving]
    return solution
