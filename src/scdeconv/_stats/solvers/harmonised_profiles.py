"""Harp: profiles corrected by pairs of bulk and fractions, and gene weights that maximise the correlation."""

from __future__ import annotations

import numpy as np

from scdeconv._stats.least_squares import RELATIVE_RIDGE, normal_equations, solve_least_squares
from scdeconv._stats.rounding import deviations_from_mean

# maximum absolute change of a profile value, relative to its mean, at convergence (set by hand)
TOLERANCE = 1e-6
MAX_ITERATIONS = 10_000
# curvature of the penalty at 0
CURVATURE = 0.5
# penalties of the cross-validation, values of harp
PENALTIES = (*np.arange(0, 1.05, 0.1).round(1).tolist(), 2.0, 4.0, 8.0, 16.0, 32.0)
# largest change of a log weight in one step: larger steps amplify rounding errors (set by hand)
STEP = 0.02
# mean decrease of the loss over the last steps at convergence, and maximum number of steps; values of the R package DTD
MIN_DECREASE, N_AVERAGED, MAX_STEPS = 1e-5, 30, 10_000


def fit_profiles(
    fractions: np.ndarray, bulk: np.ndarray, profiles: np.ndarray, penalty: float, start: np.ndarray | None = None
) -> np.ndarray:
    r"""Fit profiles X to the bulk of the pairs, with a penalty on differences from the given profiles S.

    .. math:: \min_X \sum (C X - Y)^2 + \lambda \sum h(X - S), \quad h(u) = \log(1 + e^u) + \log(1 + e^{-u})

    The penalty is quadratic near 0 and linear far from 0. It is solved by iteratively reweighted ridge regression: the
    curvature of the quadratic majoriser at u is ``tanh(u / 2) / u``, so the loss decreases in each iteration.

    Parameters
    ----------
    fractions
        C, samples × cell types.
    bulk
        Y, samples × genes.
    profiles
        S, cell types × genes.
    penalty
        Lambda.
    start
        Start of the iteration. Default: the given profiles.

    Returns
    -------
    Cell types × genes; may be negative.
    """
    gram, moment = fractions.T @ fractions, ((bulk - fractions @ profiles).T @ fractions)[..., None]
    if penalty == 0:
        # minimum-norm change: the limit of gradient descent from the given profiles
        return profiles + np.linalg.pinv(fractions) @ (bulk - fractions @ profiles)
    limit, identity = TOLERANCE * np.abs(profiles).mean(), np.eye(len(gram))
    change = (profiles if start is None else start).T - profiles.T
    active = np.arange(len(change))
    for _ in range(MAX_ITERATIONS):
        old = change[active]
        far = np.abs(old) > 1e-8
        curvature = np.divide(np.tanh(old / 2), old, out=np.full_like(old, CURVATURE), where=far)
        system = 2 * gram + penalty * curvature[:, :, None] * identity
        change[active] = np.linalg.solve(system, 2 * moment[active])[..., 0]
        active = active[np.abs(change[active] - old).max(axis=1) > limit]
        if not len(active):
            break
    return profiles + change.T


def correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the correlation over samples of each cell type; 0 for constant fractions."""
    first, second = deviations_from_mean(first), deviations_from_mean(second)
    scale = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    return np.divide((first * second).sum(axis=0), scale, out=np.zeros_like(scale), where=scale > 0)


def solve_with_weights(profiles: np.ndarray, bulk: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the least-squares solutions with gene weights, samples × cell types, positive or negative."""
    return solve_least_squares(*normal_equations(profiles, bulk, np.broadcast_to(weights, bulk.shape)))


class CorrelationLoss:
    """Minus the mean correlation, over cell types, of fractions and least-squares solutions, as function of gene weights.

    Parameters
    ----------
    profiles
        Cell types × genes.
    bulk
        Samples × genes.
    fractions
        Samples × cell types.
    """

    def __init__(self, profiles: np.ndarray, bulk: np.ndarray, fractions: np.ndarray) -> None:
        self._profiles, self._bulk = profiles, bulk
        deviations = deviations_from_mean(fractions)
        norm = np.sqrt((deviations**2).sum(axis=0))
        self._known = np.divide(deviations, norm, out=np.zeros_like(deviations), where=norm > 0)
        # normal equations are linear in the weights
        products = (profiles[:, None] * profiles).reshape(-1, profiles.shape[1])
        self._products = np.vstack([products, (bulk[:, None] * profiles).reshape(-1, profiles.shape[1])]).T

    def __call__(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss and its gradient (length genes)."""
        n_types = len(self._profiles)
        sums = weights @ self._products
        inverse = _inverse(sums[: n_types**2].reshape(n_types, n_types))
        solved = sums[n_types**2 :].reshape(-1, n_types) @ inverse
        deviations = solved - solved.mean(axis=0)
        norm = np.sqrt((deviations**2).sum(axis=0))
        found = deviations / np.where(norm > 0, norm, 1)
        correlation = (self._known * found).sum(axis=0)
        # derivative of the loss by the solutions
        slope = (correlation * found - self._known) / (np.where(norm > 0, norm, np.inf) * n_types)
        residual, direction = self._bulk - solved @ self._profiles, (slope @ inverse) @ self._profiles
        return -float(correlation.mean()), (residual * direction).sum(axis=0)


def _inverse(gram: np.ndarray) -> np.ndarray:
    """Return the inverse of a matrix of normal equations; zeros for types without expression."""
    scale = np.sqrt(np.diagonal(gram))
    shrink = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    outer = shrink[:, None] * shrink
    inverse: np.ndarray = np.linalg.inv(gram * outer + np.diag(np.where(scale > 0, RELATIVE_RIDGE, 1.0))) * outer
    return inverse


def correlation_weights(profiles: np.ndarray, bulk: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Choose gene weights that maximise the correlation of least-squares solutions and fractions (Görtler et al. 2020).

    Exponentiated gradient descent from equal weights, so that weights stay positive. The correlation of few pairs can
    become 1 and the minimum is not unique; the descent ends when the mean decrease of the loss over 30 steps is small.

    Parameters
    ----------
    profiles
        Cell types × genes.
    bulk
        Samples × genes.
    fractions
        Samples × cell types.

    Returns
    -------
    Weights with mean 1, length genes.
    """
    loss, weights = CorrelationLoss(profiles, bulk, fractions), np.ones(profiles.shape[1])
    value, slope = loss(weights)
    values = [value]
    for _ in range(MAX_STEPS):
        weights = weights * np.exp(-STEP * slope / max(np.abs(slope).max(), np.finfo(float).tiny))
        weights *= len(weights) / weights.sum()
        value, slope = loss(weights)
        values.append(value)
        if len(values) > N_AVERAGED and values[-1 - N_AVERAGED] - value < N_AVERAGED * MIN_DECREASE:
            break
    return weights


def recovery_factors(measured: np.ndarray, solved: np.ndarray) -> np.ndarray:
    """Return the slope of solved over measured fractions of each type; 1 if it is not positive or not defined.

    Parameters
    ----------
    measured, solved
        Samples × cell types.
    """
    deviations = deviations_from_mean(measured)
    squares = (deviations**2).sum(axis=0)
    slope = np.divide((deviations * solved).sum(axis=0), squares, out=np.zeros_like(squares), where=squares > 0)
    return np.where(slope > 0, slope, 1.0)


def choose_penalty(fractions: np.ndarray, bulk: np.ndarray, profiles: np.ndarray, folds: list[np.ndarray]) -> float:
    """Choose the penalty of :func:`fit_profiles` by cross-validation.

    Parameters
    ----------
    fractions
        Samples × cell types.
    bulk
        Samples × genes.
    profiles
        Cell types × genes.
    folds
        Masks of the samples of each fold.

    Returns
    -------
    Penalty with the highest mean correlation, over cell types, of fractions and non-negative solutions of the samples left
    out; the smallest one for ties.
    """
    solved = np.zeros((len(PENALTIES), *fractions.shape))
    for rows in folds:
        start = None
        for found, penalty in zip(solved, PENALTIES, strict=True):
            start = fit_profiles(fractions[~rows], bulk[~rows], profiles, penalty, start)
            found[rows] = solve_with_weights(np.maximum(start, 0), bulk[rows], np.ones(bulk.shape[1]))
    scores = [correlations(fractions, np.maximum(found, 0)).mean() for found in solved]
    return PENALTIES[int(np.argmax(scores))]
