"""Log-ratios of and distances between compositions."""

from __future__ import annotations

import numpy as np

# lower bound of fractions before the logarithm: smaller ones are counting noise (set by hand, 1 of 1,000 cells)
FLOOR = 1e-3


def centred_log_ratio(fractions: np.ndarray, floor: float = FLOOR) -> np.ndarray:
    """Return centred log-ratios of fractions with a lower bound, samples × cell types."""
    logs = np.log(np.maximum(fractions, floor))
    return logs - logs.mean(axis=-1, keepdims=True)


def to_fractions(amounts: np.ndarray) -> np.ndarray:
    """Clip amounts (samples × cell types) at 0 and normalise rows to sum to 1; rows of zeros become uniform."""
    amounts = np.maximum(amounts, 0)
    totals = amounts.sum(axis=1, keepdims=True)
    uniform = np.full_like(amounts, 1 / amounts.shape[1])
    # not "> 0": NaN rows must stay NaN
    return np.divide(amounts, totals, out=uniform, where=totals != 0)


def without_common_level(covariance: np.ndarray) -> np.ndarray:
    """Return the covariance of log-ratios (cell types × cell types) after centring them over cell types."""
    projection = np.eye(len(covariance)) - 1 / len(covariance)
    return projection @ covariance @ projection


def mean_kl(true: np.ndarray, estimate: np.ndarray, floor: float = 0.0) -> float:
    """Return the mean Kullback-Leibler divergence over rows in nats; ``floor`` is a lower bound of the fractions."""
    p, q = (values / values.sum(axis=1, keepdims=True) for values in (np.maximum(x, floor) for x in (true, estimate)))
    return float(np.mean(np.sum(p * np.log(p / q), axis=1)))


def mean_transport_cost(sources: np.ndarray, targets: np.ndarray, cost: np.ndarray | None) -> float:
    """Return the mean transport cost over rows; ``cost=None`` means unit costs, i.e. half the L1 distance."""
    if cost is None:
        return float(np.abs(sources - targets).sum(axis=1).mean() / 2)
    return float(np.mean([transport_cost(p, q, cost) for p, q in zip(sources, targets, strict=True)]))


def transport_cost(source: np.ndarray, target: np.ndarray, cost: np.ndarray) -> float:
    """Return the minimum cost to transport `source` to `target`, by linear programming over the flows between types."""
    from scipy.optimize import linprog

    k = len(source)
    leaving, arriving = np.kron(np.eye(k), np.ones(k)), np.kron(np.ones(k), np.eye(k))
    # drop the redundant last equation: rounding could make the full system infeasible
    balance, mass = np.vstack([leaving, arriving[:-1]]), np.concatenate([source, target[:-1]])
    solution = linprog(cost.ravel(), A_eq=balance, b_eq=mass)
    if solution.fun is None:
        msg = f"Expected a solution of the transport problem, found a HiGHS error: {solution.message}. Check the cost."
        raise RuntimeError(msg)
    return float(solution.fun)
