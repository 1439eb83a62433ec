"""Log-ratios of compositions, and distances between compositions."""

from __future__ import annotations

import numpy as np

# fractions below this count as this: their logarithms are counting noise
FLOOR = 1e-3


def centred_log_ratio(fractions: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """Return log fractions less their mean over cell types, samples × cell types; smaller fractions are raised to the floor."""
    logs = np.log(np.maximum(fractions, floor))
    return logs - logs.mean(axis=-1, keepdims=True)


def mean_kl(true: np.ndarray, estimate: np.ndarray, floor: float = 0.0) -> float:
    """Return the Kullback-Leibler divergence in nats, mean over rows; smaller fractions are raised to the floor."""
    p, q = (values / values.sum(axis=1, keepdims=True) for values in (np.maximum(x, floor) for x in (true, estimate)))
    return float(np.mean(np.sum(p * np.log(p / q), axis=1)))


def mean_transport_cost(sources: np.ndarray, targets: np.ndarray, cost: np.ndarray | None) -> float:
    """Return the mean over rows; without a cost all moves cost 1, which gives half the sum of absolute differences."""
    if cost is None:
        return float(np.abs(sources - targets).sum(axis=1).mean() / 2)
    return float(np.mean([transport_cost(p, q, cost) for p, q in zip(sources, targets, strict=True)]))


def transport_cost(source: np.ndarray, target: np.ndarray, cost: np.ndarray) -> float:
    """Return the least cost of moving `source` onto `target`, by linear programming over the flows between types."""
    from scipy.optimize import linprog

    k = len(source)
    leaving, arriving = np.kron(np.eye(k), np.ones(k)), np.kron(np.ones(k), np.eye(k))
    # the last equation follows from the others; with it, rounding could make the programme infeasible
    balance, mass = np.vstack([leaving, arriving[:-1]]), np.concatenate([source, target[:-1]])
    solution = linprog(cost.ravel(), A_eq=balance, b_eq=mass)
    if solution.fun is None:
        msg = f"Expected HiGHS to solve the transport problem, found: {solution.message}"
        raise RuntimeError(msg)
    return float(solution.fun)


def without_common_level(covariance: np.ndarray) -> np.ndarray:
    """Return a covariance of log-ratios, cell types × cell types, without the variance of their common level."""
    projection = np.eye(len(covariance)) - 1 / len(covariance)
    return projection @ covariance @ projection
